"""Log-probabilities of tokens straight from hidden states: the logits of a few rows at a time.

In: the hidden states of R rows, the output weights, and M tokens with the row that predicts each. Out: `logps_M`, in
float32 or wider. Guarantees: exact gradients; no more than `CELLS` logits exist at once. Logits that fit in one go are
kept for the way back; of more, they are computed a second time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CELLS = 2**25
"""128 MiB in float32."""


def token_logps(hidden_RH: Tensor, weight_VH: Tensor, rows_M: Tensor, targets_M: Tensor) -> Tensor:
    """`logps_M`. `rows_M` must ascend."""
    if torch.is_autocast_enabled(hidden_RH.device.type):
        dtype = torch.get_autocast_dtype(hidden_RH.device.type)
        hidden_RH, weight_VH = hidden_RH.to(dtype), weight_VH.to(dtype)
    logps_M: Tensor = _TokenLogps.apply(hidden_RH, weight_VH, rows_M, targets_M)  # type: ignore[no-untyped-call]
    return logps_M


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_RH: Tensor, weight_VH: Tensor, rows_M: Tensor, targets_M: Tensor) -> Tensor:
        parts = _parts(len(hidden_RH), len(weight_VH), rows_M)
        logps_M = hidden_RH.new_empty(len(rows_M), dtype=torch.promote_types(hidden_RH.dtype, torch.float32))
        logps_RV = None
        for rows, tokens in parts:
            logps_RV = _logps(hidden_RH[rows], weight_VH)
            logps_M[tokens] = logps_RV[rows_M[tokens] - rows.start, targets_M[tokens]]
        ctx.parts = parts
        ctx.save_for_backward(hidden_RH, weight_VH, rows_M, targets_M, logps_RV if len(parts) == 1 else None)
        return logps_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_RH, weight_VH, rows_M, targets_M, kept_RV = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden_RH = torch.empty_like(hidden_RH) if wants_hidden else None
        grad_weight_VH = torch.zeros_like(weight_VH) if wants_weight else None
        for rows, tokens in ctx.parts:
            logps_RV = _logps(hidden_RH[rows], weight_VH) if kept_RV is None else kept_RV
            rows_m, grad_m = rows_M[tokens] - rows.start, grad_M[tokens]
            # d logp[target] / d logits = onehot(target) - softmax, summed over the tokens that a row predicts.
            weights_R = grad_m.new_zeros(len(logps_RV)).index_add_(0, rows_m, grad_m)
            grad_RV = logps_RV.exp().mul_(-weights_R[:, None])
            grad_RV.index_put_((rows_m, targets_M[tokens]), grad_m, accumulate=True)
            grad_RV = grad_RV.to(hidden_RH.dtype)
            if grad_hidden_RH is not None:
                grad_hidden_RH[rows] = grad_RV @ weight_VH
            if grad_weight_VH is not None:
                grad_weight_VH.addmm_(grad_RV.T, hidden_RH[rows])
        return grad_hidden_RH, grad_weight_VH, None, None


def _logps(hidden_RH: Tensor, weight_VH: Tensor) -> Tensor:
    logits_RV = hidden_RH @ weight_VH.T
    return logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32)).log_softmax(-1)


def _parts(rows: int, vocabulary: int, rows_M: Tensor) -> list[tuple[slice, slice]]:
    """Rows few enough at a time, and the tokens that they predict."""
    size = max(1, CELLS // vocabulary)
    starts = list(range(0, rows, size))
    bounds = torch.searchsorted(rows_M, torch.tensor([*starts, rows], device=rows_M.device)).tolist()
    return [
        (slice(start, min(start + size, rows)), slice(first, last))
        for start, (first, last) in zip(starts, pairwise(bounds), strict=True)
    ]
