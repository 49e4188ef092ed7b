"""What a token sampled by older weights is worth to those that are trained. Pure; nothing here has a gradient.

    r_t = pi(y_t) / mu(y_t)            mu: the policy that sampled, by the log-probabilities of its own engine
    w_t = min(r_t, cap)                the weight: truncated importance sampling
    m_t = low <= r_t <= high           the mask: where pi and mu disagree by more, the token does not train
    log prox_t = log mu_t + a (log pi_t - log mu_t),  a = (d - 1) / d  after d updates, and 1 after none

The weight corrects and the mask refuses: they are kept apart, and both are logged. `prox` stands for the policy of one
update ago, which decoupled clipping needs, without a forward pass for it (A-3PO: Li et al. 2025, arXiv 2512.06547):
after one update it is mu. What no policy sampled, originals and rewrites, has ratio 1, weight 1 and is never masked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from preceptor_trainer.objectives.objective import TrainingSequence


@dataclass(frozen=True)
class Drift:
    """How far the policy has moved away from the samplers of its batch: log pi - log mu, 0 where none sampled."""

    log_ratio_BT: Tensor
    sampled_BT: Tensor
    staleness_B1: Tensor

    def proximal_log_ratio(self) -> Tensor:
        """log prox - log mu: `log_ratio_BT` of the policy of one update ago."""
        updates_B1 = self.staleness_B1.to(self.log_ratio_BT.dtype)
        share_B1 = torch.where(updates_B1 > 0, (updates_B1 - 1) / updates_B1.clamp(min=1), 1.0)
        return share_B1 * self.log_ratio_BT

    def mean_log_ratio(self) -> Tensor:
        """Of each sequence over its tokens: 0 for what no policy sampled."""
        return self.log_ratio_BT.sum(-1) / self.sampled_BT.sum(-1).clamp(min=1)

    def figures(self) -> dict[str, float]:
        """Means over the tokens that a policy sampled: the ratio r, and KL(mu || pi) by the estimator k3, r - 1 - log
        r.
        """
        log_ratio_BT = self.log_ratio_BT.double()
        return {
            "ratio": mean_over(log_ratio_BT.exp(), self.sampled_BT, otherwise=1.0),
            "sampler_kl": mean_over(log_ratio_BT.expm1() - log_ratio_BT, self.sampled_BT, otherwise=0.0),
        }


def drift(sequences: Sequence[TrainingSequence], policy_logps_BT: Tensor, mask_BT: Tensor) -> Drift:
    """Of `policy_logps_BT` from what `sequences` were sampled with."""
    policy_BT = policy_logps_BT.detach()
    width, device = policy_BT.shape[-1], policy_BT.device
    rows = [list(sequence.logps or ()) for sequence in sequences]
    sampler_BT = torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=policy_BT.dtype, device=device)
    sampled_BT = mask_BT & torch.tensor([sequence.logps is not None for sequence in sequences], device=device)[:, None]
    staleness_B1 = torch.tensor([[sequence.staleness] for sequence in sequences], device=device)
    return Drift((policy_BT - sampler_BT).masked_fill(~sampled_BT, 0.0), sampled_BT, staleness_B1)


def truncated(log_ratio_BT: Tensor, cap: float) -> Tensor:
    """`weight_BT`: the ratio, at most `cap`."""
    return log_ratio_BT.clamp(max=math.log(cap)).exp()


def within(log_ratio_BT: Tensor, low: float, high: float) -> Tensor:
    """`keep_BT`: where the ratio is at least `low` and at most `high`."""
    return (log_ratio_BT >= math.log(low)) & (log_ratio_BT <= math.log(high))


def mean_over(values_BT: Tensor, of_BT: Tensor, *, otherwise: float) -> float:
    """Mean of the values where `of_BT` is true; `otherwise` if it is nowhere."""
    return values_BT[of_BT].mean().item() if of_BT.any() else otherwise


def share(what_BT: Tensor, of_BT: Tensor) -> float:
    """How many of the tokens of `of_BT` are in `what_BT` as well; 0 of none."""
    return mean_over(what_BT.float(), of_BT, otherwise=0.0)
