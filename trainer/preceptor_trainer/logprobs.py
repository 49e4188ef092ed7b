"""Log-probabilities of suffixes given their prefixes.

    column   0 ......... P-1 | P ............ P+T-1
    row      pad pad prefix  | suffix suffix pad        prefixes end, and suffixes start, at the same column

In: a causal language model and B pairs of token ids. Out: `logps_BT` and `mask_BT`. Guarantees: equal, up to
rounding, to a forward pass of each row alone; padding is never attended to; logits are computed for the T suffix
columns alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def suffix_logps(
    model: Any, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """`logps_BT` (natural logarithm, float32 or wider, 0 where masked) and `mask_BT` (bool): token t of suffix b given
    all before.

    T is the longest suffix. Raises ValueError for an empty prefix: its suffix's first token would have no probability.
    """
    logits_BTV, targets_BT, mask_BT = suffix_logits(model, prefixes, suffixes)
    logps_BT = logits_BTV.gather(-1, targets_BT[..., None]).squeeze(-1) - logits_BTV.logsumexp(-1)
    return logps_BT.masked_fill(~mask_BT, 0.0), mask_BT


def suffix_logits(
    model: Any, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """`logits_BTV` (float32 or wider) that predict the suffixes' tokens, `targets_BT`, those tokens, and `mask_BT`.

    Raises ValueError for an empty prefix.
    """
    ids_BL, attention_BL, mask_BT = _layout(prefixes, suffixes, model.device)
    width = mask_BT.shape[1]
    # Without padding the model takes its faster causal path.
    positions: dict[str, Tensor] = {}
    if not bool(attention_BL.all()):
        positions = {"attention_mask": attention_BL, "position_ids": (attention_BL.cumsum(-1) - 1).clamp(min=0)}
    logits_BTV = model(input_ids=ids_BL, use_cache=False, logits_to_keep=width + 1, **positions).logits[:, :-1]
    return logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32)), ids_BL[:, -width:], mask_BT


def _layout(
    prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    ids, attention = [], []
    before, after = max(map(len, prefixes)), max(map(len, suffixes))
    for prefix, suffix in zip(prefixes, suffixes, strict=True):
        if not prefix:
            raise ValueError("a prefix must have at least one token")
        left, right = before - len(prefix), after - len(suffix)
        ids.append([0] * left + [*prefix, *suffix] + [0] * right)
        attention.append([0] * left + [1] * (len(prefix) + len(suffix)) + [0] * right)
    attention_BL = torch.tensor(attention, device=device)
    return torch.tensor(ids, device=device), attention_BL, attention_BL[:, before:].bool()
