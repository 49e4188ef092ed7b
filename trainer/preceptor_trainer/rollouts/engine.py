"""What every policy engine is: K continuations of each prefix, from weights that the trainer hands over.

Guarantees of every engine: `logps` are the natural log-probabilities of the raw policy (temperature 1, nothing cut
off) and equal those of a plain forward pass with the weights of `version`; a sample runs on one version from start to
end; a sample that starts after `load` returned runs on what was loaded. Generation stops at `n_tokens`, or at an
end-of-text token, which is then the last id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from preceptor_trainer.errors import TrainError


class EngineError(TrainError):
    """The policy engine did not do what it was asked."""


@dataclass(frozen=True)
class Rollout:
    """A sampled continuation, `logps` one per id."""

    ids: tuple[int, ...]
    logps: tuple[float, ...]


@dataclass(frozen=True)
class Rollouts:
    """`of_prefix[i]` are the K rollouts of the i-th prefix, sampled at weights `version`."""

    version: int
    of_prefix: tuple[tuple[Rollout, ...], ...]


class PolicyEngine(Protocol):
    """Used by one task at a time."""

    @property
    def version(self) -> int:
        """Of the weights that the next sample will use."""
        ...

    @property
    def waiting(self) -> str | None:
        """What the sample or load that runs waits for: a server that is away, and what was seen of it."""
        ...

    async def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        k: int,
        n_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Rollouts:
        """Raises `EngineError`. Temperature 0 is greedy."""
        ...

    async def load(self, model: Any, version: int) -> None:
        """Take over the weights of `model`, which must not change until this returns. Raises `EngineError`."""
        ...

    async def close(self) -> None:
        """Let go of what the engine holds."""
        ...
