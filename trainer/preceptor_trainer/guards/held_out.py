"""The NLL of held-out suffixes: what the policy has forgotten of the text it was trained on before.

In: the policy and windows, always the same. Out: nats a token. Nothing is drawn at random, so two readings differ by
the weights alone. Blocks while it computes: call it in a thread. Several ranks need only rank 0, which has the weights
whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from preceptor_trainer.compute import rounded
from preceptor_trainer.config import ComputeConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.logprobs import suffix_logps

_BATCH_TOKENS = 8192
"""Most tokens of one forward pass, but for a window that is longer."""


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
