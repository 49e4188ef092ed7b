"""A teacher in this process that answers prompts.

In: prompts as token ids. Out: answers, several a prompt. Guarantees: what is sampled depends on the weights, the
prompts, their order and the seed alone. It answers in a thread; between batches it looks whether it is to stop, and
raises `Stopped` then. Raises `TrainError` for a prompt that the model has no room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from preceptor_trainer.codec import Codec
from preceptor_trainer.errors import TrainError
from preceptor_trainer.rollouts.engine import Rollout
from preceptor_trainer.rollouts.torch_engine import TorchEngine


class Stopped(Exception):
    """The command is to end; what was being answered is not."""


class Respondent:
    """`model` is copied; `at_once` prompts are answered together."""

    def __init__(self, model: Any, codec: Codec, *, at_once: int, stop: asyncio.Event, version: int = 0) -> None:
        self.engine = TorchEngine(model, eos_id=codec.eos_id, version=version)
        self._codec = codec
        self._positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self._at_once = at_once
        self._stop = stop

    async def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        count: int,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> list[tuple[Rollout, ...]]:
        """`count` answers to each prompt."""
        longest = max(map(len, prompts), default=0) + max_tokens
        if self._positions is not None and longest > self._positions:
            raise TrainError(
                f"a prompt and its answer may have {longest} tokens and the model takes {self._positions}: lower "
                "data.prefix_tokens or data.suffix_tokens"
            )
        answered: list[tuple[Rollout, ...]] = []
        for start in range(0, len(prompts), self._at_once):
            if self._stop.is_set():
                raise Stopped
            rollouts = await self.engine.sample(
                prompts[start : start + self._at_once],
                k=count,
                n_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed + start,
            )
            answered += rollouts.of_prefix
        return answered

    async def texts(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        count: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """The same as texts; the likeliest one unless told otherwise."""
        sampled = await self.sample(
            prompts, count=count, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        return [[self._codec.decode(answer.ids) for answer in answers] for answers in sampled]
