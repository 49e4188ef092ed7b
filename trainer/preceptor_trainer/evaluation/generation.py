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
    """A window's texts: its prefix, its own suffix (empty for a prompt), and what a model wrote instead."""

    prefix: str
    original: str
    text: str


def generate(
    model: Any,
    codec: Codec,
    windows: Sequence[Window],
    *,
    control: str | None = None,
    n_tokens: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Generation]:
    """A sample for each window, of at most `n_tokens` or else as long as its suffix, behind the token `control` if
    there is one; `progress` is told how many have been added. Raises `TrainError` if `control` is no token.
    """
    prompts = behind(control, codec, windows)
    engine = TorchEngine(model, eos_id=codec.tokenizer.eos_token_id)
    generations: list[Generation] = []
    lengths = [len(window.suffix) if n_tokens is None else n_tokens for window in windows]
    longest = max((len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)), default=1)
    size = max(1, min(_BATCH, _BATCH_TOKENS // longest))
    for start in range(0, len(windows), size):
        batch, limits = windows[start : start + size], lengths[start : start + size]
        rollouts = asyncio.run(
            engine.sample(prompts[start : start + size], k=1, n_tokens=max(limits), seed=seed + start)
        )
        generations += [
            Generation(
                codec.decode(window.prefix),
                codec.decode(window.suffix),
                codec.decode(only.ids[:limit]),
            )
            for window, limit, (only,) in zip(batch, limits, rollouts.of_prefix, strict=True)
        ]
        progress(len(batch))
    return generations


def behind(control: str | None, codec: Codec, windows: Sequence[Window]) -> list[tuple[int, ...]]:
    """What a policy reads of each window: its prefix, behind the token `control` if there is one."""
    head = () if control is None else (codec.control(control),)
    return [(*head, *window.prefix) for window in windows]
