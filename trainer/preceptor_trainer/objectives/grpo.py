"""GRPO over every judged candidate of each cohort.

    A_i   = (s_i - mean s) / (std s + 1e-6)                         s: the cohort's composite scores
    u_it  = pi(y_it) / anchor(y_it)
    loss  = -mean_i ( 1/|y_i| sum_t m_it w_it min( u_it A_i, clip(u_it, 1 - low, 1 + high) A_i ) )

Shao et al. 2024 (arXiv 2402.03300), equation 3, without the KL term. Dr.GRPO (Liu et al. 2025, arXiv 2503.20783)
leaves out std and divides by a constant, the suffix length of the run, instead of |y_i|. Rollouts come from a policy mu
that may be some updates old; the correction says how (weight w and mask m are those of `correction`, prox as well):

    correction   anchor   w, m                      as in
    none         pi       1                         the plain policy gradient, as if mu were pi
    clip         mu       1                         PPO: what has moved too far gives no gradient any more
    truncate     pi       min(pi / mu, cap), m      truncated importance sampling (Ionides 2008)
    decoupled    prox     min(prox / mu, cap), m    Hilton et al. 2021 (arXiv 2110.00641), AReaL (arXiv 2505.24298)

Masked tokens still count in |y_i|. Originals and rewrites have no sampler among the policies: anchor pi, w = m = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

import torch
from torch import Tensor

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.objectives.correction import drift, mean_over, share, truncated, within
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence, judged


def advantages(scores: Sequence[float], *, normalize_std: bool) -> list[float]:
    """Of each score within its cohort; they sum to 0."""
    mean = fmean(scores)
    scale = pstdev(scores) + 1e-6 if normalize_std else 1.0
    return [(score - mean) / scale for score in scores]


def grpo_loss(
    policy_logps_BT: Tensor,
    anchor_logps_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    weight_BT: Tensor | None = None,
    keep_BT: Tensor | None = None,
    length: int | None = None,
) -> Tensor:
    """The clipped surrogate, negated: a scalar. `length` divides every sequence instead of its own number of tokens."""
    lengths_B = mask_BT.sum(-1).clamp(min=1) if length is None else length
    if keep_BT is not None:
        mask_BT = mask_BT & keep_BT
    # Not multiplied by the mask afterwards: a ratio that overflows there must not make the sum NaN.
    ratio_BT = (policy_logps_BT - anchor_logps_BT).masked_fill(~mask_BT, 0.0).exp()
    advantages_B1 = advantages_B[:, None]
    surrogate_BT = torch.minimum(ratio_BT * advantages_B1, ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_B1)
    if weight_BT is not None:
        surrogate_BT = surrogate_BT * weight_BT
    return -(surrogate_BT.masked_fill(~mask_BT, 0.0).sum(-1) / lengths_B).mean()


class Grpo:
    """The objective. `suffix_tokens` is the constant of Dr.GRPO, in force when `normalize_std` is False."""

    needs_reference = False

    def __init__(self, config: ObjectiveConfig, suffix_tokens: int) -> None:
        self._config = config
        self._length = None if config.normalize_std else suffix_tokens

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        sequences = []
        for cohort in cohorts:
            scores = judged(cohort).scores
            candidates = [candidate for candidate in cohort.candidates if candidate.id in scores]
            values = advantages(
                [scores[candidate.id] for candidate in candidates], normalize_std=self._config.normalize_std
            )
            sequences += [
                TrainingSequence(cohort.prompt, candidate.ids, candidate.logps, advantage, version - cohort.version)
                for candidate, advantage in zip(candidates, values, strict=True)
            ]
        return sequences

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        config, policy_BT = self._config, inputs.policy_logps_BT
        moved = drift(inputs.sequences, policy_BT, inputs.mask_BT)
        still_BT = torch.zeros_like(moved.log_ratio_BT)
        # log pi / anchor, and the log-ratio that becomes the weight.
        match config.correction:
            case "none":
                update_BT, weighed_BT = still_BT, still_BT
            case "clip":
                update_BT, weighed_BT = moved.log_ratio_BT, still_BT
            case "truncate":
                update_BT, weighed_BT = still_BT, moved.log_ratio_BT
            case "decoupled":
                weighed_BT = moved.proximal_log_ratio()
                update_BT = moved.log_ratio_BT - weighed_BT
        weight_BT = truncated(weighed_BT, config.ratio_cap)
        keep_BT = torch.ones_like(inputs.mask_BT)
        if config.correction in ("truncate", "decoupled"):
            keep_BT = within(moved.log_ratio_BT, config.ratio_low, config.ratio_high)
        loss = grpo_loss(
            policy_BT,
            policy_BT.detach() - update_BT,
            torch.tensor([sequence.advantage for sequence in inputs.sequences], device=policy_BT.device),
            inputs.mask_BT,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            weight_BT=weight_BT,
            keep_BT=keep_BT,
            length=self._length,
        )
        sampled_BT = moved.sampled_BT
        return loss, {
            **moved.figures(),
            "weight": mean_over(weight_BT, sampled_BT, otherwise=1.0),
            "truncated": share(weighed_BT > math.log(config.ratio_cap), sampled_BT),
            "masked": share(~keep_BT, sampled_BT),
            "clipped": share(~within(update_BT, 1 - config.clip_low, 1 + config.clip_high), sampled_BT & keep_BT),
        }
