"""What every objective is: which sequences of a cohort it trains on, and a loss over their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from preceptor_trainer.cohorts import Judged, PolicyCohort


@dataclass(frozen=True)
class TrainingSequence:
    """A suffix to train on after its prefix. `logps` are the sampling policy's, where it sampled the suffix, and
    `staleness` is how many updates that was ago.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    logps: tuple[float, ...] | None = None
    advantage: float = 0.0
    staleness: int = 0


@dataclass(frozen=True)
class LossInputs:
    """B sequences in the order in which the objective gave them; masked positions are 0 in every tensor."""

    sequences: Sequence[TrainingSequence]
    policy_logps_BT: Tensor
    reference_logps_BT: Tensor | None
    mask_BT: Tensor


class Objective(Protocol):
    """Losses are means over cohorts (or over their sequences), so that a step may be computed in parts and added up."""

    needs_reference: bool

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        """What `cohorts` contribute to the update of the weights of `version`."""
        ...

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise (scalar), and figures worth logging."""
        ...


def judged(cohort: PolicyCohort) -> Judged:
    """The cohort's verdicts; raises ValueError if it has none."""
    if cohort.judged is None:
        raise ValueError(f"cohort {cohort.id} was not judged")
    return cohort.judged
