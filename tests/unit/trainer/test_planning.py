from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.capacity import mean_context, replica, weights_read, write_seconds
from preceptor_trainer.planning.estimates import Estimate, estimates
from preceptor_trainer.planning.hardware import GPUS
from preceptor_trainer.planning.models import ModelSizes, Span
from preceptor_trainer.planning.plan import Plan, make_plan
from preceptor_trainer.planning.settings import Estimates, PlanSettings
from preceptor_trainer.planning.stages import engine_work, tokens, update_work

POLICY = ModelSizes(name="policy", layers=24, hidden=2048, heads=16, mlp=5632, vocab=32000)
JUDGE = ModelSizes(name="judge", layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=128256)
H100 = GPUS["H100"]


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "out": "runs/x",
        "steps": 100,
        "cohorts_per_step": 256,
        "model": {"path": "policy"},
        "data": {"path": "documents.jsonl", "prefix_tokens": 1920, "suffix_tokens": 128},
        "pool": {"original": False, "rollouts": 16},
        "judge": {"axes": {"quality": 1.0, "safety": 1.0}},
        "compute": {"micro_cohorts": 4, "precision": "bfloat16"},
    }
    return TrainConfig.model_validate(values | changes)


def plan(run: TrainConfig | None = None, **settings: Any) -> Plan:
    settled = PlanSettings.model_validate({"policy": POLICY, "judge": JUDGE} | settings)
    return make_plan(run or config(), settled, estimates(settled.estimates, None))


def test_an_update_of_pairs_reads_each_prefix_once() -> None:
    work = update_work(config(), PlanSettings(policy=POLICY))
    assert tokens(work.naive) == 256 * 4096
    assert tokens(work.shared) == work.tokens == 256 * 2176
    assert work.passes == 4  # forward, twice as much backward, the reference


def test_an_update_of_whole_pools_saves_more() -> None:
    grpo = update_work(config(objective={"name": "grpo"}), PlanSettings(policy=POLICY))
    assert (tokens(grpo.naive), tokens(grpo.shared)) == (256 * 32768, 256 * 3968)
    assert grpo.passes == 3
    assert 7 < grpo.naive_flops / grpo.flops < 8.5


def test_nothing_is_shared_where_there_is_one_sequence_or_it_is_switched_off() -> None:
    one = update_work(config(objective={"name": "rf_nll"}), PlanSettings(policy=POLICY))
    off = update_work(config(compute={"shared_prefix": "off"}), PlanSettings(policy=POLICY))
    assert one.flops == one.naive_flops
    assert off.flops == off.naive_flops


def test_a_step_asks_for_what_its_schedule_axes_and_votes_take() -> None:
    run = config(judge={"axes": {"quality": 1.0, "safety": 1.0}, "sampling": {"votes": 5, "temperature": 1.0}})
    rollouts, judging = engine_work(run, PlanSettings(policy=POLICY, judge=JUDGE))
    assert (rollouts.calls, tokens(rollouts.read), tokens(rollouts.written)) == (256, 256 * 1920, 256 * 16 * 128)
    assert judging.calls == 256 * (240 + 16)
    assert tokens(judging.written) == 256 * 5 * (240 * 256 + 16 * 160)


def test_an_axis_that_only_a_gate_looks_at_is_asked_about_as_well() -> None:
    def calls(*gates: dict[str, Any]) -> float:
        run = config(judge={"axes": {"safety": 1.0}, "gates": gates}, pool={"original": True, "rollouts": 3})
        *_, judging = engine_work(run, PlanSettings(policy=POLICY, judge=JUDGE))
        return judging.calls / run.cohorts_per_step

    assert calls() == 4
    assert calls({"kind": "axis", "axis": "quality", "minimum": 0.5}) == 4 + 4 * 3


def test_decoding_waits_for_memory_until_arithmetic_takes_longer() -> None:
    spans = (Span(1000, 100, 500, logits=100),)
    one = replica(JUDGE, H100, mean_context(spans), most=1)
    many = replica(JUDGE, H100, mean_context(spans), most=256)
    bytes_each = JUDGE.bytes + mean_context(spans) * JUDGE.kv_bytes_per_token
    alone = write_seconds(JUDGE, spans, H100, one, mfu=0.5, bandwidth=0.6)
    assert alone == pytest.approx(100_000 * bytes_each / (0.6 * H100.bandwidth))
    together = write_seconds(JUDGE, spans, H100, many, mfu=0.5, bandwidth=0.6)
    assert together < alone / 50
    # At a hundredth of the FLOP/s it is those that count.
    slow = write_seconds(JUDGE, spans, H100, many, mfu=0.001, bandwidth=0.6)
    assert slow > 100_000 * 2 * (JUDGE.active_parameters - JUDGE.head) / (0.001 * H100.flops)


def test_few_tokens_meet_few_experts() -> None:
    sparse = JUDGE.model_copy(update={"experts": 64, "active_experts": 2})
    assert weights_read(sparse, 1) == pytest.approx(
        2 * (sparse.parameters - sparse.layers * 62 * sparse.expert), rel=1e-9
    )
    assert weights_read(sparse, 1000) == pytest.approx(sparse.bytes)


def test_a_model_that_is_too_large_for_one_gpu_is_split() -> None:
    large = JUDGE.model_copy(update={"layers": 320})
    assert [replica(model, H100, 2000, 256).gpus for model in (JUDGE, large)] == [1, 4]


@given(st.integers(4, 300))
def test_gpus_are_shared_out_so_that_no_other_division_is_faster_by_a_replica(gpus: int) -> None:
    made = plan(gpus=gpus)
    slowest = max(made.pools, key=lambda pool: pool.seconds)
    assert made.gpus <= gpus
    assert gpus - made.gpus < slowest.unit
    for pool in made.pools:
        # One that has more than it began with would be the slowest without the last of it.
        if pool.gpus > pool.unit:
            assert pool.gpu_seconds / (pool.gpus - pool.unit) + pool.waits >= slowest.seconds


def test_a_step_takes_as_long_as_its_slowest_pool_or_all_of_them_in_turn() -> None:
    overlapped = plan(estimates={"overlap": 1.25})
    assert overlapped.step_seconds == pytest.approx(1.25 * max(pool.seconds for pool in overlapped.pools))
    in_turn = plan(config(staleness={"limit": 0}))
    assert in_turn.step_seconds == pytest.approx(sum(pool.seconds for pool in in_turn.pools))
    assert in_turn.hours == pytest.approx(100 * in_turn.step_seconds / 3600)


def test_weights_are_sent_where_there_are_rollouts() -> None:
    made = plan()
    assert made.sync_bytes == 4 * POLICY.parameters
    assert {pool.name for pool in made.pools if pool.waits} == {"trainer", "policy engine"}
    none = plan(config(pool={"rewrite": True}))
    assert none.sync_bytes == 0
    assert [stage.name for stage in none.stages] == ["rewriting", "judging", "update"]


def test_a_rewriter_of_its_own_has_gpus_of_its_own() -> None:
    run = config(pool={"rewrite": True, "rollouts": 2})
    assert [pool.stages for pool in plan(run).pools] == [("update",), ("rollouts",), ("rewriting", "judging")]
    apart = plan(run, rewriter=JUDGE)
    assert [pool.name for pool in apart.pools] == ["trainer", "policy engine", "rewriter", "teacher"]


def test_too_few_gpus_are_told_by_what_is_needed() -> None:
    with pytest.raises(TrainError, match=r"plan.gpus is 2, and the run takes 3 to begin with: 1 for the trainer"):
        plan(gpus=2)


def test_a_trainer_that_does_not_fit_says_so() -> None:
    assert plan().fits
    assert not plan(config(compute={"micro_cohorts": None}), gpus=8).fits


def test_shares_are_given_or_measured_or_assumed(tmp_path: Path) -> None:
    (tmp_path / "shared-prefix.json").write_text(
        json.dumps({"cases": {"a": {"share_of_ideal": 0.8}, "b": {"share_of_ideal": 0.9}}, "measured": {"cpu": "x"}})
    )
    (tmp_path / "scale.json").write_text(json.dumps({"mfu": 0.9, "measured": {"cpu": "x"}}))
    found = estimates(Estimates(overlap=1.5), tmp_path)
    assert found["overlap"] == Estimate(1.5, "given", found["overlap"].what)
    assert found["shared_prefix"].value == pytest.approx(0.85)
    assert found["shared_prefix"].source == "measured on CPU: benchmark shared-prefix"
    assert found["update_mfu"].source.startswith("assumed"), "a CPU says nothing of a GPU's FLOP/s"
    (tmp_path / "scale.json").write_text(json.dumps({"mfu": 0.5, "measured": {"device": "NVIDIA H200"}}))
    assert estimates(Estimates(), tmp_path)["update_mfu"].source == "measured on NVIDIA H200: benchmark scale"


def test_a_share_that_only_the_measuring_machine_explains_counts_as_one(tmp_path: Path) -> None:
    (tmp_path / "shared-prefix.json").write_text(json.dumps({"cases": [{"share_of_ideal": 1.3}]}))
    (tmp_path / "overlap.json").write_text(
        json.dumps({"step_over_longest_stage": 1.02, "sweep": [{"step_over_longest_stage": 2}]})
    )
    found = estimates(Estimates(), tmp_path)
    assert (found["shared_prefix"].value, found["overlap"].value) == (1.0, 1.02)


def test_a_control_is_judged_for_its_share_of_the_windows_and_by_its_own_axes() -> None:
    controls = [
        {"token": "<safe>", "share": 0.25, "axes": {"safety": 1.0}},
        {"token": "<raw>", "share": 0.75, "prefer": ["original", "rollout"]},
    ]
    run = config(pool={"original": True, "rollouts": 3}, controls=controls)
    *_, judging = engine_work(run, PlanSettings(policy=POLICY, judge=JUDGE))
    assert judging.calls == 0.25 * 256 * 4
