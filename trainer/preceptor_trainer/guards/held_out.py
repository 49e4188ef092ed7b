"""The NLL of held-out suffixes: what the policy has forgotten of the text it was trained on before.

In: the guard's windows, always the same, and the policy. Out: nats a token. Nothing is drawn at random, so two readings
differ by the weights alone. Blocks while it computes: call it in a thread. Several ranks need only rank 0, which has
the weights whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from preceptor_trainer.codec import Codec
from preceptor_trainer.compute import rounded
from preceptor_trainer.config import ComputeConfig, TrainConfig
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.stream import held_out
from preceptor_trainer.data.windows import Window
from preceptor_trainer.guards.config import PLACE
from preceptor_trainer.logprobs import suffix_logps

_BATCH_TOKENS = 8192
"""Most tokens of one forward pass, but for a window that is longer."""


def held_out_windows(config: TrainConfig, codec: Codec, say: Callable[[str], None]) -> list[Window]:
    """The windows of the guard `held_out_nll`, none if it is off; `say` is told what was passed over. Raises
    `DocumentError`, which names the guard's keys."""
    if (guard := config.guards.held_out_nll) is None:
        return []
    try:
        return held_out(config.held_out(guard), codec.encode, guard.windows, say)
    except DocumentError as error:
        raise DocumentError(re.sub(rf"\bdata\.({'|'.join(PLACE)})\b", r"guards.held_out_nll.\1", str(error))) from None


@torch.no_grad()
def held_out_nll(model: Any, windows: Sequence[Window], compute: ComputeConfig) -> float:
    """Mean over the tokens of all suffixes of -log pi(token | all before)."""
    total, tokens = 0.0, 0
    longest = max(len(window.prefix) + len(window.suffix) for window in windows)
    size = max(1, _BATCH_TOKENS // longest)
    for start in range(0, len(windows), size):
        batch = windows[start : start + size]
        with rounded(compute, model.device):
            logps_BT, mask_BT = suffix_logps(model, [each.prefix for each in batch], [each.suffix for each in batch])
        total -= logps_BT.sum(dtype=torch.float64).item()
        tokens += int(mask_BT.sum().item())
    return total / tokens
