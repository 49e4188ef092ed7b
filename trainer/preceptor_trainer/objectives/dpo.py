"""Online DPO on the best against the worst of each cohort.

    loss = mean_b softplus(-h_b) = mean_b -log sigmoid(h_b)
    h_b  = beta [ (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)) ]

with log pi(suffix) the sum over its tokens. Rafailov et al. 2023 (arXiv 2305.18290), equation 7; online as in SIP
(arXiv 2601.21343), the reference frozen at the start of the run. `nll_weight` adds the mean over pairs of the chosen
suffix's mean token NLL (Pang et al. 2024, arXiv 2404.19733), which keeps its probability from sinking.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import softplus

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.objectives.nll import nll_loss
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence, judged


def dpo_margins(
    policy_chosen_B: Tensor, policy_rejected_B: Tensor, reference_chosen_B: Tensor, reference_rejected_B: Tensor
) -> Tensor:
    """`margins_B`, in nats: how much more than the reference the policy prefers each chosen suffix. Inputs: summed
    logps.
    """
    return (policy_chosen_B - reference_chosen_B) - (policy_rejected_B - reference_rejected_B)


def dpo_loss(margins_B: Tensor, beta: float) -> Tensor:
    """Mean over pairs of -log sigmoid(beta x margin): a scalar."""
    return softplus(-beta * margins_B).mean()


class Dpo:
    """The objective. Sequences are ordered: every chosen suffix, then every rejected one."""

    needs_reference = True

    def __init__(self, beta: float, nll_weight: float = 0.0) -> None:
        self._beta = beta
        self._nll_weight = nll_weight

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        chosen = [TrainingSequence(c.window.prefix, judged(c).chosen.ids) for c in cohorts]
        return chosen + [TrainingSequence(c.window.prefix, judged(c).rejected.ids) for c in cohorts]

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        if inputs.reference_logps_BT is None:
            raise ValueError("dpo needs the reference model's log-probabilities")
        pairs = len(inputs.sequences) // 2
        policy_B = inputs.policy_logps_BT.sum(-1)
        reference_B = inputs.reference_logps_BT.sum(-1)
        margins_B = dpo_margins(policy_B[:pairs], policy_B[pairs:], reference_B[:pairs], reference_B[pairs:])
        loss = dpo_loss(margins_B, self._beta)
        if self._nll_weight:
            loss = loss + self._nll_weight * nll_loss(inputs.policy_logps_BT[:pairs], inputs.mask_BT[:pairs])
        return loss, {
            "margin": margins_B.mean().item(),
            "accuracy": (margins_B > 0).float().mean().item(),
            "chosen_logp": policy_B[:pairs].mean().item(),
            "rejected_logp": policy_B[pairs:].mean().item(),
        }
