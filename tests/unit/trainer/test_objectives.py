"""Every loss against values worked out by hand, and its gradient against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.objectives.dpo import dpo_loss, dpo_margins
from preceptor_trainer.objectives.grpo import advantages, grpo_loss
from preceptor_trainer.objectives.nll import nll_loss
from preceptor_trainer.objectives.objective import LossInputs

LOGPS_BT = [[-1.0, -2.0, -3.0], [-0.5, -0.25, 0.0]]
MASK_BT = torch.tensor([[True, True, True], [True, True, False]])


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_nll_is_the_mean_over_sequences_of_the_mean_over_their_tokens() -> None:
    assert nll_loss(double(LOGPS_BT), MASK_BT).item() == pytest.approx((2.0 + 0.375) / 2)


def test_nll_does_not_read_what_is_masked() -> None:
    loud = double([[-1.0, -2.0, -3.0], [-0.5, -0.25, -1e9]])
    assert nll_loss(loud, MASK_BT).item() == pytest.approx((2.0 + 0.375) / 2)


def test_dpo_at_the_reference_is_log_two_with_a_gradient_of_half_beta() -> None:
    chosen, rejected = double([-3.0]), double([-5.0])
    loss = dpo_loss(dpo_margins(chosen, rejected, torch.tensor([-3.0]), torch.tensor([-5.0])), beta=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(2))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.1, 0.1))


def test_dpo_by_hand_on_two_pairs() -> None:
    margins_B = dpo_margins(
        torch.tensor([-2.0, -4.0]), torch.tensor([-6.0, -4.0]), torch.tensor([-3.0, -3.0]), torch.tensor([-5.0, -6.0])
    )
    assert margins_B.tolist() == [2.0, -3.0]
    expected = (math.log(1 + math.exp(-0.5 * 2)) + math.log(1 + math.exp(0.5 * 3))) / 2
    assert dpo_loss(margins_B, beta=0.5).item() == pytest.approx(expected)


def test_dpo_is_finite_for_huge_margins() -> None:
    assert dpo_loss(torch.tensor([1e6, -1e6]), beta=0.1).item() == pytest.approx(5e4)


def test_advantages_by_hand_with_and_without_the_standard_deviation() -> None:
    assert advantages([1.0, 0.0, 0.5, 0.5], normalize_std=False) == pytest.approx([0.5, -0.5, 0.0, 0.0])
    expected = [0.5 / math.sqrt(0.125), -0.5 / math.sqrt(0.125), 0.0, 0.0]
    assert advantages([1.0, 0.0, 0.5, 0.5], normalize_std=True) == pytest.approx(expected, rel=1e-4)


def test_grpo_on_policy_is_minus_the_mean_advantage() -> None:
    logps_BT = double(LOGPS_BT)
    loss = grpo_loss(
        logps_BT, logps_BT.detach(), torch.tensor([2.0, -1.0]).double(), MASK_BT, clip_low=0.2, clip_high=0.2
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(-0.5)
    assert logps_BT.grad is not None
    assert logps_BT.grad.tolist() == [pytest.approx([-1 / 3] * 3), pytest.approx([0.25, 0.25, 0.0])]


def test_grpo_clips_by_hand_on_the_side_that_would_go_further() -> None:
    policy = double([[math.log(1.5), math.log(0.5)], [math.log(1.5), math.log(0.5)]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    loss = grpo_loss(policy, torch.zeros(2, 2), torch.tensor([1.0, -1.0]).double(), mask, clip_low=0.2, clip_high=0.3)
    good = (1.3 + 0.5) / 2  # up is clipped at 1.3, down is kept
    bad = (-1.5 - 0.8) / 2  # up is kept, down is clipped at 0.8
    assert loss.item() == pytest.approx(-(good + bad) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert policy.grad is not None
    assert (policy.grad != 0).tolist() == [[False, True], [True, False]]


def test_grpo_divides_by_the_constant_length_of_dr_grpo() -> None:
    logps_BT = double(LOGPS_BT)
    loss = grpo_loss(
        logps_BT, logps_BT.detach(), torch.tensor([2.0, -1.0]).double(), MASK_BT, clip_low=0.2, clip_high=0.2, length=4
    )
    assert loss.item() == pytest.approx(-(2 * 3 / 4 - 1 * 2 / 4) / 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: nll_loss(x, MASK_BT),
        lambda x: dpo_loss(dpo_margins(x.sum(-1), 2 * x.sum(-1), torch.zeros(2), torch.ones(2)), beta=0.3),
        lambda x: grpo_loss(
            x, torch.tensor(LOGPS_BT) + 0.07, torch.tensor([1.0, -0.5]), MASK_BT, clip_low=0.2, clip_high=0.2
        ),
    ],
    ids=["nll", "dpo", "grpo"],
)
def test_gradients_agree_with_finite_differences(loss: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, double(LOGPS_BT))


def candidate(id: str, origin: Origin, *ids: int, logps: tuple[float, ...] | None = None) -> TokenCandidate:
    return TokenCandidate(id, origin, ids, id, logps)


ORIGINAL = candidate("original", Origin.ORIGINAL, 5, 6, 7)
GOOD = candidate("rollout-0", Origin.ROLLOUT, 8, 9, 10, logps=(-1.0, -1.0, -1.0))
BAD = candidate("rollout-1", Origin.ROLLOUT, 11, logps=(-2.0,))
UNJUDGED = candidate("rollout-2", Origin.ROLLOUT, 12, logps=(-3.0,))
COHORT = PolicyCohort(
    id="c",
    window=Window(0, 0, (1, 2), (5, 6, 7)),
    version=0,
    candidates=(ORIGINAL, GOOD, BAD, UNJUDGED),
    judged=Judged({"original": 1.0, "rollout-0": 2.0, "rollout-1": 0.0}, {}, chosen=GOOD, rejected=BAD),
)


def suffixes(name: str, **settings: object) -> list[tuple[int, ...]]:
    objective = make_objective(ObjectiveConfig.model_validate({"name": name, **settings}), suffix_tokens=3)
    return [sequence.suffix for sequence in objective.sequences([COHORT, COHORT], 0)]


def test_each_objective_trains_on_its_own_candidates() -> None:
    assert suffixes("dpo") == [GOOD.ids, GOOD.ids, BAD.ids, BAD.ids]
    assert suffixes("rf_nll") == [GOOD.ids, GOOD.ids]
    assert suffixes("nll") == [ORIGINAL.ids, ORIGINAL.ids]
    assert suffixes("nll", target="rollout") == [GOOD.ids, BAD.ids, UNJUDGED.ids] * 2
    assert suffixes("grpo") == [ORIGINAL.ids, GOOD.ids, BAD.ids] * 2


def test_grpo_takes_what_the_policy_did_not_sample_as_on_policy() -> None:
    objective = make_objective(ObjectiveConfig(name="grpo", normalize_std=False), suffix_tokens=3)
    sequences = objective.sequences([COHORT], 0)
    policy_BT = torch.full((3, 3), -1.0)
    mask_BT = torch.tensor([[True] * 3, [True] * 3, [True, False, False]])
    policy_BT = policy_BT.masked_fill(~mask_BT, 0.0).requires_grad_()
    loss, figures = objective.loss(LossInputs(sequences, policy_BT, None, mask_BT))
    # Advantages 0, 1, -1; weights 1, 1 and e, which is truncated to 2.
    assert loss.item() == pytest.approx(-(0 + 1 - 2 / 3) / 3)
    assert figures["ratio"] == pytest.approx((3 + math.e) / 4)
    assert figures["weight"] == pytest.approx((3 + 2) / 4)


def test_dpo_adds_the_nll_of_the_chosen_when_asked() -> None:
    plain = make_objective(ObjectiveConfig(name="dpo"), 3)
    mixed = make_objective(ObjectiveConfig(name="dpo", nll_weight=0.5), 3)
    sequences = plain.sequences([COHORT], 0)
    policy_BT = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]])
    mask_BT = torch.tensor([[True] * 3, [True, False, False]])
    inputs = LossInputs(sequences, policy_BT, torch.zeros(2, 3), mask_BT)
    assert mixed.loss(inputs)[0].item() - plain.loss(inputs)[0].item() == pytest.approx(0.5 * 2.0)


def test_an_objective_that_chooses_refuses_a_cohort_without_verdicts() -> None:
    unjudged = PolicyCohort("c", COHORT.window, 0, COHORT.candidates)
    for name in ("dpo", "rf_nll", "grpo"):
        with pytest.raises(ValueError, match="not judged"):
            make_objective(ObjectiveConfig.model_validate({"name": name}), 3).sequences([unjudged], 0)
