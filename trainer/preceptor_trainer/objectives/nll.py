"""Next-token prediction without a judge, on what one origin wrote: the originals are the baseline on the same data, the
rewrites that on the teacher's, and a rollout is SFT on the policy's own text.

loss = mean_b ( 1/|y_b| sum_t -log pi(y_bt | x_b, y_b<t) )
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence


def nll_loss(logps_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over sequences of the mean NLL of their tokens: a scalar, nats per token. An empty sequence counts as 0."""
    mask_BT = mask_BT.to(logps_BT.dtype)
    return -((logps_BT * mask_BT).sum(-1) / mask_BT.sum(-1).clamp(min=1)).mean()


class Nll:
    """The objective. It reads no verdict."""

    needs_reference = False

    def __init__(self, config: ObjectiveConfig) -> None:
        self._target = config.target

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        return [
            TrainingSequence(cohort.prompt, candidate.ids)
            for cohort in cohorts
            for candidate in cohort.candidates
            if candidate.origin is self._target
        ]

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        loss = nll_loss(inputs.policy_logps_BT, inputs.mask_BT)
        return loss, {"nll": loss.item()}
