"""Weights and masks on values worked out by hand, and what GRPO and DPO make of them."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.objectives.correction import drift, truncated, within
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence

Name = Literal["none", "clip", "truncate", "decoupled"]
CORRECTIONS: tuple[Name, ...] = get_args(Name)
LOGPS = st.lists(st.floats(-8, -0.01), min_size=1, max_size=5)


def sampled(*logps: float, advantage: float = 1.0, staleness: int = 0) -> TrainingSequence:
    return TrainingSequence((1,), tuple(range(len(logps))), logps, advantage, staleness)


def inputs(sequences: list[TrainingSequence], policy: list[list[float]]) -> LossInputs:
    """`policy` are its log-probabilities, a row a sequence."""
    width = max(map(len, policy))
    policy_BT = torch.tensor([row + [0.0] * (width - len(row)) for row in policy], dtype=torch.float64)
    mask_BT = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in policy])
    return LossInputs(sequences, policy_BT.requires_grad_(), torch.zeros_like(policy_BT), mask_BT)


def grpo(given: LossInputs, correction: Name, **settings: Any) -> tuple[float, Tensor, dict[str, float]]:
    """Loss, gradient and figures."""
    settings = {"name": "grpo", "correction": correction, **settings}
    loss, figures = make_objective(ObjectiveConfig.model_validate(settings), 8).loss(given)
    (grad_BT,) = torch.autograd.grad(loss, given.policy_logps_BT)
    return loss.item(), grad_BT, figures


def logs(*ratios: float) -> Tensor:
    return torch.tensor(ratios, dtype=torch.float64).log()


def test_weights_are_ratios_up_to_the_cap() -> None:
    assert truncated(logs(0.25, 1.0, 2.0, 9.0), 2.0).tolist() == pytest.approx([0.25, 1.0, 2.0, 2.0])


def test_the_mask_keeps_what_lies_within_its_bounds() -> None:
    assert within(logs(0.1, 0.5, 1.0, 4.0, 4.1), 0.5, 4.0).tolist() == [False, True, True, True, False]


def test_weights_and_masks_of_ratios_that_overflow_are_numbers() -> None:
    log_ratio = torch.tensor([1e4, -1e4])
    assert truncated(log_ratio, 2.0).tolist() == [2.0, 0.0]
    assert within(log_ratio, 0.1, 8.0).tolist() == [False, False]


def test_the_proximal_policy_is_that_of_one_update_ago_on_a_straight_way() -> None:
    sequences = [sampled(-3.0, staleness=updates) for updates in (0, 1, 2, 4)]
    given = inputs(sequences, [[-1.0]] * 4)
    moved = drift(sequences, given.policy_logps_BT, given.mask_BT)
    assert moved.proximal_log_ratio()[:, 0].tolist() == pytest.approx([2.0, 0.0, 1.0, 1.5])


def test_the_drift_by_hand() -> None:
    sequences = [sampled(-1.0, -2.0), TrainingSequence((1,), (5, 6, 7))]
    given = inputs(sequences, [[-1.0 + math.log(2), -2.0], [-1.0, -1.0, -1.0]])
    figures = drift(sequences, given.policy_logps_BT, given.mask_BT).figures()
    assert figures["ratio"] == pytest.approx((2 + 1) / 2)
    assert figures["sampler_kl"] == pytest.approx((2 - 1 - math.log(2)) / 2)


def test_every_correction_of_one_sequence_by_hand() -> None:
    """Two updates old, advantage 1, ratios 4 and 1.21; clipped above 1.2; a straight half-way is 2 and 1.1."""
    given = inputs([sampled(-3.0, -2.0, staleness=2)], [[-3.0 + math.log(4), -2.0 + math.log(1.21)]])
    losses = {name: grpo(given, name, ratio_cap=1.5) for name in CORRECTIONS}
    expected: dict[Name, tuple[float, list[float]]] = {
        "none": (-(1 + 1) / 2, [1.0, 1.0]),
        "clip": (-(1.2 + 1.2) / 2, [0.0, 0.0]),
        "truncate": (-(1.5 + 1.21) / 2, [1.5, 1.21]),
        "decoupled": (-(1.5 * 1.2 + 1.1 * 1.1) / 2, [0.0, 1.1 * 1.1]),
    }
    for name, (loss, grads) in expected.items():
        assert losses[name][0] == pytest.approx(loss)
        assert (-2 * losses[name][1][0]).tolist() == pytest.approx(grads)
    figures = losses["decoupled"][2]
    assert figures["weight"] == pytest.approx((1.5 + 1.1) / 2)
    assert (figures["truncated"], figures["masked"], figures["clipped"]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("correction", ["truncate", "decoupled"])
def test_a_masked_token_trains_nothing_and_still_counts_in_the_length(correction: Name) -> None:
    given = inputs([sampled(-9.0, -2.0, staleness=1)], [[-1.0, -2.0]])
    loss, grad_BT, figures = grpo(given, correction)
    assert loss == pytest.approx(-1 / 2)
    assert grad_BT.tolist() == [pytest.approx([0.0, -1 / 2])]
    assert (figures["masked"], figures["weight"] <= 2) == (0.5, True)


@given(LOGPS, st.floats(-2, 2), st.integers(0, 9), st.sampled_from(CORRECTIONS))
def test_without_drift_every_correction_is_the_plain_policy_gradient(
    logps: list[float], advantage: float, staleness: int, correction: Name
) -> None:
    given = inputs([sampled(*logps, advantage=advantage, staleness=staleness)], [logps])
    loss, grad_BT, figures = grpo(given, correction)
    assert loss == pytest.approx(-advantage)
    assert grad_BT.tolist() == [pytest.approx([-advantage / len(logps)] * len(logps))]
    assert figures == {
        "ratio": 1.0,
        "sampler_kl": 0.0,
        "weight": 1.0,
        "truncated": 0.0,
        "masked": 0.0,
        "clipped": 0.0,
    }


@given(LOGPS, st.floats(-2, 2), st.integers(0, 9), st.sampled_from(CORRECTIONS))
def test_what_no_policy_sampled_is_the_plain_policy_gradient_however_old(
    logps: list[float], advantage: float, staleness: int, correction: Name
) -> None:
    sequence = TrainingSequence((1,), tuple(range(len(logps))), None, advantage, staleness)
    _, grad_BT, figures = grpo(inputs([sequence], [logps]), correction)
    assert grad_BT.tolist() == [pytest.approx([-advantage / len(logps)] * len(logps))]
    assert (figures["weight"], figures["masked"]) == (1.0, 0.0)


@given(st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01)), min_size=1, max_size=5), st.integers(0, 9))
def test_the_gradient_of_truncation_is_weight_times_mask_times_advantage(
    pairs: list[tuple[float, float]], staleness: int
) -> None:
    policy, sampler = zip(*pairs, strict=True)
    given = inputs([sampled(*sampler, advantage=0.7, staleness=staleness)], [list(policy)])
    _, grad_BT, figures = grpo(given, "truncate", ratio_cap=1.5, ratio_low=0.2, ratio_high=3.0)
    ratios = [math.exp(new - old) for new, old in pairs]
    kept = [0.2 <= ratio <= 3.0 for ratio in ratios]
    wanted = [-0.7 / len(pairs) * min(ratio, 1.5) * keep for ratio, keep in zip(ratios, kept, strict=True)]
    assert grad_BT.tolist() == [pytest.approx(wanted)]
    assert figures["masked"] == pytest.approx(1 - sum(kept) / len(kept))
    assert 0 <= figures["weight"] <= 1.5
    assert figures["sampler_kl"] >= 0


@given(st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01)), min_size=1, max_size=5))
def test_one_update_old_decoupled_is_ppo_clipping(pairs: list[tuple[float, float]]) -> None:
    policy, sampler = zip(*pairs, strict=True)
    given = inputs([sampled(*sampler, advantage=-0.7, staleness=1)], [list(policy)])
    unmasked = {"ratio_low": 1e-9, "ratio_high": 1e9}
    assert grpo(given, "decoupled", **unmasked)[1].tolist() == [pytest.approx(grpo(given, "clip")[1][0].tolist())]


def test_ratios_that_overflow_leave_a_loss_that_is_a_number() -> None:
    given = inputs([sampled(-2000.0, -1.0, staleness=3)], [[-1.0, -1.0]])
    for correction in ("none", "truncate", "decoupled"):
        loss, grad_BT, _ = grpo(given, correction)
        assert math.isfinite(loss)
        assert bool(grad_BT.isfinite().all())


CHOSEN = TokenCandidate("rollout-0", Origin.ROLLOUT, (8, 9), "a", (-1.0, -3.0))
REJECTED = TokenCandidate("original", Origin.ORIGINAL, (5,), "b")
COHORT = PolicyCohort(
    "c", Window(0, 0, (1,), (5,)), 2, (REJECTED, CHOSEN), Judged({"a": 1.0, "b": 0.0}, {}, CHOSEN, REJECTED)
)


def dpo_loss_and_figures(pair_weight: str) -> tuple[float, dict[str, float]]:
    objective = make_objective(ObjectiveConfig.model_validate({"name": "dpo", "pair_weight": pair_weight}), 8)
    sequences = objective.sequences([COHORT], 5)
    assert [sequence.staleness for sequence in sequences] == [3, 3]
    loss, figures = objective.loss(inputs(sequences, [[-2.0, -3.0], [-4.0]]))
    return loss.item(), figures


def test_pairs_count_by_how_likely_their_rollouts_still_are_when_asked() -> None:
    plain, figures = dpo_loss_and_figures("none")
    weighted, weighted_figures = dpo_loss_and_figures("ratio")
    weight = math.exp((-2.0 + 1.0) / 2)
    assert weighted == pytest.approx(weight * plain)
    assert (figures["weight"], weighted_figures["weight"]) == pytest.approx((1.0, weight))
    assert figures["ratio"] == weighted_figures["ratio"] == pytest.approx((math.exp(-1.0) + 1.0) / 2)
