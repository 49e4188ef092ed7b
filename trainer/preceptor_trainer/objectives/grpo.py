"""GRPO over every judged candidate of each cohort.

    A_i   = (s_i - mean s) / (std s + 1e-6)                         s: the cohort's composite scores
    r_it  = pi(y_it) / pi_sampler(y_it)
    loss  = mean_i ( 1/|y_i| sum_t -min( r_it A_i, clip(r_it, 1 - low, 1 + high) A_i ) )

Shao et al. 2024 (arXiv 2402.03300), equation 3, without the KL term. Dr.GRPO (Liu et al. 2025, arXiv 2503.20783)
leaves out std and divides by a constant, the suffix length of the run, instead of |y_i|. The sampler's
log-probabilities come from the policy engine. Originals and rewrites have no sampler among the policies: they are
taken as on-policy (r = 1 at the update, the plain policy gradient).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

import torch
from torch import Tensor

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence, judged


def advantages(scores: Sequence[float], *, normalize_std: bool) -> list[float]:
    """Of each score within its cohort; they sum to 0."""
    mean = fmean(scores)
    scale = pstdev(scores) + 1e-6 if normalize_std else 1.0
    return [(score - mean) / scale for score in scores]


def grpo_loss(
    policy_logps_BT: Tensor,
    sampler_logps_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    length: int | None = None,
) -> Tensor:
    """The clipped surrogate, negated: a scalar. `length` divides every sequence instead of its own number of tokens."""
    mask_BT = mask_BT.to(policy_logps_BT.dtype)
    ratio_BT = (policy_logps_BT - sampler_logps_BT).exp()
    advantages_B1 = advantages_B[:, None]
    surrogate_BT = torch.minimum(ratio_BT * advantages_B1, ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_B1)
    lengths_B = mask_BT.sum(-1).clamp(min=1) if length is None else length
    return -((surrogate_BT * mask_BT).sum(-1) / lengths_B).mean()


class Grpo:
    """The objective. `suffix_tokens` is the constant of Dr.GRPO, in force when `normalize_std` is False."""

    needs_reference = False

    def __init__(self, clip_low: float, clip_high: float, *, normalize_std: bool, suffix_tokens: int) -> None:
        self._clip_low = clip_low
        self._clip_high = clip_high
        self._normalize_std = normalize_std
        self._length = None if normalize_std else suffix_tokens

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        sequences = []
        for cohort in cohorts:
            scores = judged(cohort).scores
            candidates = [candidate for candidate in cohort.candidates if candidate.id in scores]
            values = advantages([scores[candidate.id] for candidate in candidates], normalize_std=self._normalize_std)
            sequences += [
                TrainingSequence(
                    cohort.window.prefix, candidate.ids, candidate.logps, advantage, version - cohort.version
                )
                for candidate, advantage in zip(candidates, values, strict=True)
            ]
        return sequences

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        policy_BT = inputs.policy_logps_BT
        sampler_BT = policy_BT.detach().clone()
        for row, sequence in enumerate(inputs.sequences):
            if sequence.logps is not None:
                sampler_BT[row, : len(sequence.logps)] = torch.tensor(sequence.logps)
        loss = grpo_loss(
            policy_BT,
            sampler_BT,
            torch.tensor([sequence.advantage for sequence in inputs.sequences], device=policy_BT.device),
            inputs.mask_BT,
            clip_low=self._clip_low,
            clip_high=self._clip_high,
            length=self._length,
        )
        ratio_BT = (policy_BT.detach() - sampler_BT).exp()
        clipped_BT = (ratio_BT < 1 - self._clip_low) | (ratio_BT > 1 + self._clip_high)
        return loss, {
            "ratio": ratio_BT[inputs.mask_BT].mean().item(),
            "clipped": clipped_BT[inputs.mask_BT].float().mean().item(),
        }
