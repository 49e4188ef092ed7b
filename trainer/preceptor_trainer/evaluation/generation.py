"""One continuation per held-out window, sampled as in training (temperature 1, nothing cut off).

In: a checkpoint and windows. Out: texts. May take seconds; no network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from preceptor_trainer.codec import Codec
from preceptor_trainer.data.windows import Window
from preceptor_trainer.rollouts.torch_engine import TorchEngine

_BATCH = 128
_BATCH_TOKENS = 65_536
"""Most tokens whose keys and values are held at once: 32 windows of 2,048."""


@dataclass(frozen=True)
class Generation:
    """A window's texts: its prefix, its own suffix, and what a model wrote instead."""

    prefix: str
    original: str
    text: str


def generate(
    model: Any,
    codec: Codec,
    windows: Sequence[Window],
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Generation]:
    """A sample for each window, at most as long as its suffix; `progress` is told how many have been added."""
    engine = TorchEngine(model, eos_id=codec.tokenizer.eos_token_id)
    generations: list[Generation] = []
    longest = max((len(window.prefix) + len(window.suffix) for window in windows), default=1)
    size = max(1, min(_BATCH, _BATCH_TOKENS // longest))
    for start in range(0, len(windows), size):
        batch = windows[start : start + size]
        n_tokens = max(len(window.suffix) for window in batch)
        rollouts = asyncio.run(
            engine.sample([window.prefix for window in batch], k=1, n_tokens=n_tokens, seed=seed + start)
        )
        generations += [
            Generation(
                codec.decode(window.prefix),
                codec.decode(window.suffix),
                codec.decode(only.ids[: len(window.suffix)]),
            )
            for window, (only,) in zip(batch, rollouts.of_prefix, strict=True)
        ]
        progress(len(batch))
    return generations
