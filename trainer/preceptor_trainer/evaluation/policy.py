"""How a policy stands to language itself, whatever a judge thinks of it: likelihood, entropy, variety, length.

In: a model, held-out windows, and what it wrote for them. Out: one figure per window, or one over all texts. Nats per
token. May take seconds; no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from preceptor_trainer.codec import Codec
from preceptor_trainer.data.windows import Window
from preceptor_trainer.evaluation.generation import Generation, behind
from preceptor_trainer.logprobs import suffix_logits, suffix_logps

_BATCH = 64


@torch.inference_mode()
def suffix_nll(model: Any, codec: Codec, windows: Sequence[Window], control: str | None = None) -> list[float]:
    """Mean NLL of each window's own suffix, behind the token `control` if there is one."""
    means: list[float] = []
    prompts = behind(control, codec, windows)
    for start in range(0, len(windows), _BATCH):
        batch = windows[start : start + _BATCH]
        logps_BT, mask_BT = suffix_logps(model, prompts[start : start + _BATCH], [w.suffix for w in batch])
        means += (-logps_BT.sum(-1) / mask_BT.sum(-1)).tolist()
    return means


@torch.inference_mode()
def entropy(
    model: Any,
    codec: Codec,
    windows: Sequence[Window],
    generations: Sequence[Generation],
    control: str | None = None,
) -> list[float]:
    """Mean entropy of the next token along what the model wrote, behind the token `control` if there is one; of each
    window for which it wrote anything.
    """
    written = [
        (prompt, ids)
        for prompt, generation in zip(behind(control, codec, windows), generations, strict=True)
        if (ids := codec.encode(generation.text))
    ]
    means: list[float] = []
    for start in range(0, len(written), _BATCH):
        batch = written[start : start + _BATCH]
        logits_BTV, _, mask_BT = suffix_logits(model, [prompt for prompt, _ in batch], [ids for _, ids in batch])
        logps_BTV = logits_BTV.log_softmax(-1)
        entropy_BT = -(logps_BTV.exp() * logps_BTV).sum(-1)
        means += (entropy_BT.masked_fill(~mask_BT, 0.0).sum(-1) / mask_BT.sum(-1)).tolist()
    return means


def distinct(texts: Sequence[str], n: int) -> float:
    """Share of different ones among the n-grams of words of all texts (Li et al. 2016, arXiv 1510.03055); 0 of none."""
    ngrams = [tuple(words[place : place + n]) for words in map(str.split, texts) for place in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0
