"""A cohort as the trainer holds it: token ids beside the texts that are judged. Plain data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from preceptor_client.contract import Origin
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window


@dataclass(frozen=True)
class TokenCandidate:
    """One continuation. `logps` are the sampling policy's, one per id; None for what the policy did not sample.

    The first `thought` ids are a thought, which `text` leaves out; None if it is malformed, and `text` is all there is.
    """

    id: str
    origin: Origin
    ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...] | None = None
    thought: int | None = 0

    @property
    def malformed(self) -> bool:
        """Worth nothing, whatever follows; no judge is asked."""
        return self.thought is None


@dataclass(frozen=True)
class PreparedWindow:
    """A window, the stream's position after it, and its rewrite if there is one."""

    window: Window
    position: Position
    rewrite: TokenCandidate | None


@dataclass(frozen=True)
class Control:
    """A control token, and its id in the policy's tokenizer."""

    token: str
    id: int


@dataclass(frozen=True)
class Judged:
    """What the verdicts say of a cohort. Scores are by candidate id; a candidate that could not be judged has none."""

    scores: dict[str, float]
    """The composite: weighted mean over the axes, after the gates; 0 for a malformed thought."""
    axis_scores: dict[str, dict[str, float]]
    """By axis."""
    chosen: TokenCandidate
    rejected: TokenCandidate
    failed: tuple[str, ...] = ()
    """Candidates that lack a verdict on some axis. None of them has a score."""


@dataclass(frozen=True)
class PolicyCohort:
    """A window with its candidates, sampled at weights `version` behind `control`, if there is one; `judged` is None
    until (or unless) it is."""

    id: str
    window: Window
    version: int
    candidates: tuple[TokenCandidate, ...]
    judged: Judged | None = None
    control: Control | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """What the policy reads: the prefix, behind the control token."""
        return (self.control.id, *self.window.prefix) if self.control else self.window.prefix
