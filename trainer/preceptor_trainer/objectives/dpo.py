"""Online DPO on the best against the worst of each cohort.

    loss = mean_b softplus(-h_b) = mean_b -log sigmoid(h_b)
    h_b  = beta [ (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)) ]

with log pi(suffix) the sum over its tokens. Rafailov et al. 2023 (arXiv 2305.18290), equation 7; online as in SIP
(arXiv 2601.21343), the reference that of the start of the run, or refreshed now and then. `nll_weight` adds the mean
over pairs of the chosen suffix's mean token NLL (Pang et al. 2024, arXiv 2404.19733), which keeps its probability from
sinking.

The loss compares two given suffixes, whoever wrote them, and needs no correction for rollouts of older weights.
`pair_weight: ratio` has pairs count by how likely they still are, as WPO does (Zhou et al. 2024, arXiv 2406.11827):

    w_b  = v(chosen) v(rejected),   v(y) = min( exp( 1/|y| sum_t log pi(y_t) / mu(y_t) ), cap )

with mu the policy that sampled y; originals and rewrites have v = 1. The DPO terms are weighted, not normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import softplus

from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.objectives.correction import drift, truncated
from preceptor_trainer.objectives.nll import nll_loss
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence, judged


def dpo_margins(
    policy_chosen_B: Tensor, policy_rejected_B: Tensor, reference_chosen_B: Tensor, reference_rejected_B: Tensor
) -> Tensor:
    """`margins_B`, in nats: how much more than the reference the policy prefers each chosen suffix. Inputs: summed
    logps.
    """
    return (policy_chosen_B - reference_chosen_B) - (policy_rejected_B - reference_rejected_B)


def dpo_loss(margins_B: Tensor, beta: float, weight_B: Tensor | None = None) -> Tensor:
    """Mean over pairs of -log sigmoid(beta x margin), each times its weight: a scalar."""
    losses_B = softplus(-beta * margins_B)
    return (losses_B if weight_B is None else weight_B * losses_B).mean()


class Dpo:
    """The objective. Sequences are ordered: every chosen suffix, then every rejected one."""

    needs_reference = True

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        def of(cohort: PolicyCohort, candidate: TokenCandidate) -> TrainingSequence:
            staleness = version - cohort.version
            return TrainingSequence(cohort.prompt, candidate.ids, candidate.logps, staleness=staleness)

        return [of(c, judged(c).chosen) for c in cohorts] + [of(c, judged(c).rejected) for c in cohorts]

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, float]]:
        if inputs.reference_logps_BT is None:
            raise ValueError("dpo needs the reference model's log-probabilities")
        pairs = len(inputs.sequences) // 2
        policy_B = inputs.policy_logps_BT.sum(-1)
        reference_B = inputs.reference_logps_BT.sum(-1)
        margins_B = dpo_margins(policy_B[:pairs], policy_B[pairs:], reference_B[:pairs], reference_B[pairs:])
        moved = drift(inputs.sequences, inputs.policy_logps_BT, inputs.mask_BT)
        weight_B = None
        if self._config.pair_weight == "ratio":
            weight_B = truncated(moved.mean_log_ratio(), self._config.ratio_cap).view(2, pairs).prod(0)
        loss = dpo_loss(margins_B, self._config.beta, weight_B)
        if nll_weight := self._config.nll_weight:
            loss = loss + nll_weight * nll_loss(inputs.policy_logps_BT[:pairs], inputs.mask_BT[:pairs])
        return loss, {
            **moved.figures(),
            "weight": 1.0 if weight_B is None else weight_B.mean().item(),
            "margin": margins_B.mean().item(),
            "accuracy": (margins_B > 0).float().mean().item(),
            "chosen_logp": policy_B[:pairs].mean().item(),
            "rejected_logp": policy_B[pairs:].mean().item(),
        }
