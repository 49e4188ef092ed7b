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
    """A sample for each window, as long as its suffix; `progress` is told how many have been added."""
    engine = TorchEngine(model, eos_id=codec.tokenizer.eos_token_id)
    generations: list[Generation] = []
    for start in range(0, len(windows), _BATCH):
        batch = windows[start : start + _BATCH]
        rollouts = asyncio.run(
            engine.sample([w.prefix for w in batch], k=1, n_tokens=len(batch[0].suffix), seed=seed + start)
        )
        generations += [
            Generation(codec.decode(window.prefix), codec.decode(window.suffix), codec.decode(only.ids))
            for window, (only,) in zip(batch, rollouts.of_prefix, strict=True)
        ]
        progress(len(batch))
    return generations
