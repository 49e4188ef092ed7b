"""Reward-filtered NLL: next-token prediction on the best candidate of each cohort (SIP, arXiv 2601.21343).

loss = mean_b ( 1/|y*_b| sum_t -log pi(y*_bt | x_b, y*_b<t) ),   y*_b the candidate with the highest composite score
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.objectives.nll import nll_loss
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence, judged


class RfNll:
    """The objective."""

    needs_reference = False

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        return [TrainingSequence(cohort.prompt, judged(cohort).chosen.ids) for cohort in cohorts]

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        loss = nll_loss(inputs.policy_logps_BT, inputs.mask_BT)
        return loss, {"chosen_nll": loss.item()}
