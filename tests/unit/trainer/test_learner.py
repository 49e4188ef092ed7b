from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ComputeConfig, ObjectiveConfig, OptimizerConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner, learning_rate
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.objectives import make_objective


def cohort(number: int) -> PolicyCohort:
    good = TokenCandidate("original", Origin.ORIGINAL, (7 + number, 8, 9), "good")
    bad = TokenCandidate("rollout-0", Origin.ROLLOUT, (20, 21 + number), "bad", (-3.0, -3.0))
    judged = Judged({"original": 1.0, "rollout-0": 0.0}, {}, good, bad)
    return PolicyCohort(f"c{number}", Window(0, number, (1, 2 + number), good.ids), 0, (good, bad), judged)


COHORTS = [cohort(number) for number in range(4)]


def learner(
    model: Any, name: str = "dpo", micro_cohorts: int | None = None, refresh: int | None = None, **settings: Any
) -> Learner:
    config = OptimizerConfig.model_validate({"lr": 1e-3, "schedule": "constant", **settings})
    objective = make_objective(ObjectiveConfig.model_validate({"name": name}), 3)
    compute = ComputeConfig(micro_cohorts=micro_cohorts)
    return Learner(model, objective, config, compute, steps=10, refresh_reference=refresh)


@pytest.mark.parametrize("name", ["dpo", "rf_nll", "grpo", "nll"])
def test_updates_raise_the_good_suffix_and_lower_the_loss(tiny_llama: Callable[..., Any], name: str) -> None:
    model = tiny_llama()
    prefixes, suffixes = [c.window.prefix for c in COHORTS], [c.window.suffix for c in COHORTS]
    before = suffix_logps(model, prefixes, suffixes)[0].sum().item()
    trainer = learner(model, name)
    losses = [trainer.update(COHORTS).loss for _ in range(8)]
    assert suffix_logps(model, prefixes, suffixes)[0].sum().item() > before
    assert losses[-1] < losses[0]
    assert trainer.version == 8


@pytest.mark.parametrize("name", ["dpo", "rf_nll", "grpo", "nll"])
def test_a_step_computed_in_parts_is_the_same_step(tiny_llama: Callable[..., Any], name: str) -> None:
    whole, parts = tiny_llama(), tiny_llama()
    at_once = learner(whole, name).update(COHORTS)
    in_parts = learner(parts, name, micro_cohorts=3).update(COHORTS)
    assert in_parts.loss == pytest.approx(at_once.loss, abs=1e-6)
    assert in_parts.grad_norm == pytest.approx(at_once.grad_norm, rel=1e-4)
    assert in_parts.tokens == at_once.tokens


def test_dpo_starts_at_log_two_because_the_reference_is_the_start(tiny_llama: Callable[..., Any]) -> None:
    stats = learner(tiny_llama()).update(COHORTS)
    assert stats.loss == pytest.approx(0.6931472, abs=1e-6)
    assert stats.figures["margin"] == 0


def test_a_reference_that_is_refreshed_is_the_policy_of_that_update(tiny_llama: Callable[..., Any]) -> None:
    trainer = learner(tiny_llama(), refresh=2)
    margins = [trainer.update(COHORTS).figures["margin"] for _ in range(5)]
    assert [margin == 0 for margin in margins] == [True, False, True, False, True]
    frozen = learner(tiny_llama())
    margins = [frozen.update(COHORTS).figures["margin"] for _ in range(5)]
    assert [margin == 0 for margin in margins] == [True, False, False, False, False]


def test_a_reference_that_is_refreshed_comes_through_a_stop(tiny_llama: Callable[..., Any]) -> None:
    whole, first, second = (learner(tiny_llama(), refresh=2) for _ in range(3))
    for _ in range(3):
        whole.update(COHORTS)
        first.update(COHORTS)
    second.restore(first.model.state_dict(), first.moments(), first.version)
    assert second.update(COHORTS) == whole.update(COHORTS)


def test_a_reference_that_was_refreshed_comes_through_every_stop_that_follows(tiny_llama: Callable[..., Any]) -> None:
    first, second, third = learner(tiny_llama(), refresh=1), learner(tiny_llama()), learner(tiny_llama())
    first.update(COHORTS)
    for before, after in ((first, second), (second, third)):
        after.restore(before.model.state_dict(), before.moments(), before.version)
    assert third.update(COHORTS).figures["margin"] == 0


def test_the_gradient_is_clipped_to_its_limit(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama()
    stats = learner(model, "nll", clip=0.01).update(COHORTS)
    assert stats.grad_norm > 0.01
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", ["dpo", "rf_nll", "grpo", "nll"])
def test_a_loss_that_is_no_number_moves_nothing(tiny_llama: Callable[..., Any], name: str) -> None:
    model = tiny_llama()
    trainer = learner(model, name)
    trainer.update(COHORTS)
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)  # finite, and too large for what is computed with it
    before = copy.deepcopy((model.state_dict(), trainer.optimizer.state_dict()))
    with pytest.raises(TrainError, match=r"update 1 has loss nan .*: lower optimizer\.lr"):
        trainer.update(COHORTS)
    assert trainer.version == 1
    torch.testing.assert_close((model.state_dict(), trainer.optimizer.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_policy_that_does_not_hold_numbers_is_refused_by_the_name_of_its_weights(
    tiny_llama: Callable[..., Any], value: float
) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    with pytest.raises(TrainError, match=r"NaN or infinity in model\.layers\.1\.mlp\.up_proj\.weight.*set model\.path"):
        learner(model)


@pytest.mark.parametrize("settings", [{"lr": 1e12}, {"lr": 3e38, "weight_decay": 10}])
def test_weights_that_give_no_numbers_after_an_update_are_not_given_out(
    tiny_llama: Callable[..., Any], settings: dict[str, Any]
) -> None:
    trainer = learner(tiny_llama(), "nll", **settings)
    with pytest.raises(TrainError, match=r"after update 0, .* gives no numbers any more: lower optimizer\.lr"):
        trainer.update(COHORTS)
    assert trainer.version == 0


def test_vectors_have_no_weight_decay(tiny_llama: Callable[..., Any]) -> None:
    trainer = learner(tiny_llama(), weight_decay=0.1)
    for group in trainer.optimizer.param_groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_the_cosine_warms_up_and_ends_at_its_ratio() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, min_lr_ratio=0.1)
    rates = [learning_rate(step, 24, config) for step in range(24)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    middle = learning_rate(4 + 19 // 2, 24, config) + learning_rate(4 + 19 - 19 // 2, 24, config)
    assert middle == pytest.approx(1.1)


def test_the_constant_schedule_only_warms_up() -> None:
    config = OptimizerConfig(lr=2.0, schedule="constant", warmup_steps=2)
    assert [learning_rate(step, 5, config) for step in range(5)] == [1.0, 2.0, 2.0, 2.0, 2.0]
