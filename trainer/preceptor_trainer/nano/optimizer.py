"""The optimizer that makes nano models learn in minutes: Muon for matrices, AdamW for the rest, one linear schedule.

Muon (Jordan et al., 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found by Newton-Schulz
iterations. torch's own `torch.optim.Muon` iterates in bfloat16, which is several times slower on CPUs without
bfloat16 units; this one iterates in the weights' own precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: the quintic that takes singular values to about 1 fastest."""
_NS_STEPS = 4
_MOMENTUM = 0.95
_WARMUP_STEPS = 50
_DECAY_FROM = 0.3
"""Share of the steps after which the learning rates fall linearly."""
_LAST = 0.02
"""Learning rate of the last step, as a share of the highest."""


def orthogonalize(matrices_NRC: Tensor) -> Tensor:
    """N matrices with the singular vectors of `matrices_NRC` and singular values near 1."""
    a, b, c = _NS_COEFFICIENTS
    x: Tensor = matrices_NRC / (matrices_NRC.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    for _ in range(_NS_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(a * x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x)
    return x.mT if tall else x


class NanoOptimizer:
    """Steps a model and `heads` (trained along with it) through `steps` updates; clips gradients to norm 1."""

    def __init__(
        self, model: nn.Module, heads: Iterable[nn.Module] = (), *, steps: int, matrix_lr: float, other_lr: float
    ) -> None:
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
        self._matrices: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in matrices:
            self._matrices[tuple(parameter.shape)].append(parameter)
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        others += [p for head in heads for p in head.parameters()]
        self._all = [*matrices, *others]
        self._adamw = torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._momenta = {shape: torch.zeros(len(same), *shape) for shape, same in self._matrices.items()}
        self._steps, self._step = steps, 0
        self._matrix_lr, self._other_lr = matrix_lr, other_lr

    def step(self, loss: Tensor) -> None:
        """Back-propagates `loss` and updates."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._all, 1.0)
        factor = self._factor()
        for group in self._adamw.param_groups:
            group["lr"] = self._other_lr * factor
        self._adamw.step()
        self._update_matrices(self._matrix_lr * factor)
        for parameter in self._all:
            parameter.grad = None
        self._step += 1

    @torch.no_grad()
    def _update_matrices(self, lr: float) -> None:
        # All matrices of a shape at once: one large product keeps several cores busy, many small ones do not.
        for (rows, columns), parameters in self._matrices.items():
            gradients: Any = [parameter.grad for parameter in parameters]
            gradient_NRC = torch.stack(gradients)
            momentum_NRC = self._momenta[rows, columns].lerp_(gradient_NRC, 1 - _MOMENTUM)
            updates_NRC = orthogonalize(gradient_NRC.lerp(momentum_NRC, _MOMENTUM))
            for parameter, update in zip(parameters, updates_NRC, strict=True):
                parameter.add_(update, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _factor(self) -> float:
        remaining = (1 - self._step / self._steps) / (1 - _DECAY_FROM)
        return min(1.0, (self._step + 1) / _WARMUP_STEPS) * max(_LAST, min(1.0, remaining))
