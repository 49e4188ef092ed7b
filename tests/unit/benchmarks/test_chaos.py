"""The chaos suite's own judgement: what its auditor finds in doctored records, and what its plans hold."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from preceptor_client.contract import (
    BatchResult,
    Composite,
    JudgeResponse,
    Problem,
    Status,
    Verdict,
)

STEPS, COHORTS_PER_STEP = 3, 2


@pytest.fixture
def audit() -> Any:
    return importlib.import_module("benchmarks.chaos_parts.audit")


def trained(window: int, step: int, **changes: Any) -> dict[str, Any]:
    line = {
        "cohort": f"ab12-0-{window}",
        "step": step,
        "outcome": "trained",
        "version": step - 1,
        "reason": None,
        "scores": {"original": 0.9, "rollout-0": 0.1},
        "failed": [],
        "chosen": "original",
        "rejected": "rollout-0",
    }
    return line | changes


def dropped(window: int, outcome: str, reason: str | None) -> dict[str, Any]:
    line = trained(window, 1, outcome=outcome, reason=reason)
    return line | {"scores": {}, "chosen": None, "rejected": None, "step": None}


def good_ledger() -> list[dict[str, Any]]:
    lines = [trained(window, 1 + window // COHORTS_PER_STEP) for window in range(STEPS * COHORTS_PER_STEP)]
    return [*lines, dropped(6, "tied", "best and worst tie"), dropped(7, "unjudged", "the deadline passed")]


@pytest.fixture
def find(audit: Any) -> Callable[..., dict[str, list[str]]]:
    """`find(ledger, metrics=..., issued=...)`: what the auditor has to say, without the empty lists."""

    def find(ledger: list[dict[str, Any]], **changes: Any) -> dict[str, list[str]]:
        values: dict[str, Any] = {
            "steps": STEPS,
            "cohorts_per_step": COHORTS_PER_STEP,
            "staleness": 1,
            "ledger": ledger,
            "metrics": [1, 2, 3],
            "issued": [f"0-{window}" for window in range(8)],
        }
        return {name: found for name, found in vars(audit.audit_run(audit.Run(**values | changes))).items() if found}

    return find


def test_a_run_without_fault_has_no_findings(find: Callable[..., Any]) -> None:
    assert find(good_ledger()) == {}


def test_a_window_that_never_ended_is_lost(find: Callable[..., Any]) -> None:
    assert find(good_ledger()[:-1]) == {"lost": ["window 0-7 was given out and never ended"]}


def test_a_drop_without_a_reason_is_a_loss(find: Callable[..., Any]) -> None:
    findings = find([*good_ledger()[:-1], dropped(7, "unjudged", None)])
    assert findings == {"lost": ["cohort ab12-0-7 was dropped as unjudged without a reason"]}


def test_a_window_trained_twice_is_doubled_also_under_another_cohort_id(find: Callable[..., Any]) -> None:
    ledger = good_ledger()
    ledger[5] = trained(4, 3, cohort="cd34-0-4")
    assert find(ledger) == {
        "lost": ["window 0-5 was given out and never ended"],
        "doubled": ["window 0-4 ended 2 times and was given out 1 times"],
    }


def test_a_window_that_was_trained_and_dropped_is_doubled(find: Callable[..., Any]) -> None:
    findings = find([*good_ledger(), dropped(0, "tied", "best and worst tie")])
    assert findings == {"doubled": ["window 0-0 ended 2 times and was given out 1 times"]}


def test_a_window_that_was_never_given_out_is_found(find: Callable[..., Any]) -> None:
    assert "doubled" in find(good_ledger(), issued=[f"0-{window}" for window in range(7)])


def test_steps_that_are_missing_or_twice_are_found(find: Callable[..., Any]) -> None:
    findings = find(good_ledger(), metrics=[1, 2, 2])
    assert findings == {
        "lost": ["a line of metrics for step 3 is missing"],
        "doubled": ["a line of metrics for step 2 is too many"],
    }


def test_a_step_trained_on_too_few_or_too_many_cohorts_is_found(find: Callable[..., Any]) -> None:
    ledger = good_ledger()
    ledger[5]["step"] = 2
    assert find(ledger) == {
        "lost": ["a cohort trained at step 3 is missing"],
        "doubled": ["a cohort trained at step 2 is too many"],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"failed": ["original"]},
        {"failed": ["rollout-0"]},
        {"failed": ["rewrite"], "scores": {"original": 0.9, "rollout-0": 0.1, "rewrite": 0.0}},
        {"failed": ["original"], "scores": {"rollout-0": 0.1}},
    ],
)
def test_a_candidate_without_a_verdict_that_was_rewarded_is_found(
    find: Callable[..., Any], changes: dict[str, Any]
) -> None:
    findings = find([trained(0, 1, **changes), *good_ledger()[1:]])
    assert [*findings] == ["failed_as_reward"]
    assert len(findings["failed_as_reward"]) == 1


def test_a_candidate_without_a_verdict_that_was_left_out_is_no_finding(find: Callable[..., Any]) -> None:
    assert find([trained(0, 1, failed=["rewrite"]), *good_ledger()[1:]]) == {}


def test_a_cohort_beyond_its_staleness_is_found(find: Callable[..., Any]) -> None:
    ledger = good_ledger()
    ledger[5]["version"] = 0
    assert find(ledger) == {"too_stale": ["cohort ab12-0-5 was sampled at 0 and trained at 2"]}


def result(index: int, status: Status = Status.OK, composite: float | None = 0.5) -> BatchResult:
    ok = status is Status.OK
    verdict = Verdict(
        candidate_id="c0", axis="safety", status=status, score=0.5 if ok else None, reason=None if ok else "x"
    )
    response = JudgeResponse(
        cohort_id=f"{index}",
        verdicts=(verdict,),
        axes={},
        composites=(Composite(candidate_id="c0", score=composite, reason=None if composite else "no verdict"),),
        elapsed_s=0.1,
    )
    return BatchResult(index=index, response=response)


@pytest.fixture
def find_in_batch(audit: Any) -> Callable[..., dict[str, list[str]]]:
    def find(received: list[BatchResult], stored: list[BatchResult]) -> dict[str, list[str]]:
        findings = audit.audit_batch(audit.BatchAccount("b", 2, received, stored))
        return {name: found for name, found in vars(findings).items() if found}

    return find


def test_a_batch_whose_items_all_have_one_result_has_no_findings(find_in_batch: Callable[..., Any]) -> None:
    both = [result(1), result(0, Status.FAILED, None)]
    assert find_in_batch(both, both) == {}


def test_batch_items_without_a_result_or_with_two_are_found(find_in_batch: Callable[..., Any]) -> None:
    findings = find_in_batch([result(0), result(0)], [result(0), result(1)])
    assert findings == {
        "lost": ["batch b: a result received of item 1 is missing"],
        "doubled": ["batch b: a result received of item 0 is too many"],
    }


def test_a_batch_item_that_ended_in_a_problem_is_lost(find_in_batch: Callable[..., Any]) -> None:
    problem = BatchResult(index=1, problem=Problem(title="Internal Server Error", status=500))
    assert [*find_in_batch([result(0), problem], [result(0), problem])] == ["lost"]


def test_a_failed_verdict_with_a_composite_is_found(find_in_batch: Callable[..., Any]) -> None:
    both = [result(0), result(1, Status.FAILED, 0.5)]
    assert [*find_in_batch(both, both)] == ["failed_as_reward"]


def test_what_is_left_in_the_queue_is_lost(audit: Any) -> None:
    assert audit.audit_queue({"waiting": 0, "dead": 1}).lost == ["1 left in the queue: dead"]
    assert not audit.audit_queue({"waiting": 0, "dead": 0})


def test_a_plan_is_even_and_the_same_for_the_same_seed() -> None:
    plan = importlib.import_module("benchmarks.chaos_parts.plan")
    for seed in range(20):
        faults = plan.plan(30, seed)
        assert faults == plan.plan(30, seed)
        assert faults[:7] == plan.plan(7, seed)
        assert {Counter((fault.target, fault.kind) for fault in faults)[cell] for cell in _cells(plan)} == {2}
        for start in range(0, 30, 5):
            five = faults[start : start + 5]
            assert {fault.target for fault in five} == {*plan.Target}
            assert {fault.kind for fault in five} == {*plan.Kind}
    assert len({str(plan.plan(5, seed)) for seed in range(20)}) == 20


def _cells(plan: Any) -> list[tuple[Any, Any]]:
    return [(target, kind) for target in plan.Target for kind in plan.Kind]


def test_growth_is_counted_from_the_least_seen() -> None:
    progress = importlib.import_module("benchmarks.chaos_parts.progress")
    counts = iter([7, 7, 8, 5, 6])
    watch = progress.Watch(lambda: next(counts))
    assert [watch.grown() for _ in range(4)] == [0, 1, 0, 1]
    assert watch.least == 5
