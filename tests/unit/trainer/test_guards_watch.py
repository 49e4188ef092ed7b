from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor_client.contract import JudgeResponse, Origin, Status, Verdict
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.guards.drift import WatchState
from preceptor_trainer.guards.watch import Watch
from preceptor_trainer.telemetry import Telemetry

COHORT = PolicyCohort("c", Window(0, 0, (1,), (1,)), 0, ())


def watch(tmp_path: Path, guards: dict[str, Any], state: WatchState | None = None) -> Watch:
    config = TrainConfig.model_validate(
        {
            "out": tmp_path,
            "steps": 10,
            "cohorts_per_step": 3,
            "model": {"path": "p"},
            "data": {"path": "d"},
            "pool": {"rollouts": 2},
            "guards": guards,
        }
    )
    return Watch(config, Telemetry(tmp_path, "r", 10), [], state)


def at_once(action: str, above: float = 0.1) -> dict[str, Any]:
    return {"above": above, "warn_after": 1, "act_after": 1, "action": action}


def response(abstained: int, of: int) -> JudgeResponse:
    verdicts = [
        Verdict(candidate_id=f"c{n}", axis="quality", status=Status.ABSTAINED, reason="no")
        if n < abstained
        else Verdict(candidate_id=f"c{n}", axis="quality", status=Status.OK, score=1.0)
        for n in range(of)
    ]
    return JudgeResponse(cohort_id="c", verdicts=tuple(verdicts), axes={}, elapsed_s=0.0)


def test_a_reading_waits_for_as_many_cohorts_as_an_update_takes(tmp_path: Path) -> None:
    watched = watch(tmp_path, {"abstention": at_once("stop")})
    for _ in range(2):
        watched.judged(COHORT, response(1, 2))
        assert watched.without_update(0) is None
    watched.judged(COHORT, response(1, 2))
    drifted = watched.without_update(7)
    assert drifted is not None
    assert str(drifted) == "drift guard abstention: 0.5 is above 0.1; the last update was 7"
    assert not drifted.pauses
    assert watched.without_update(7) is None, "each cohort is in one reading"


def test_a_pause_is_told_from_a_stop_and_a_warning_ends_nothing(tmp_path: Path) -> None:
    for action, pauses in (("pause", True), ("warn", None)):
        watched = watch(tmp_path, {"abstention": at_once(action)})
        for _ in range(3):
            watched.judged(COHORT, response(2, 2))
        drifted = watched.without_update(1)
        assert (drifted and drifted.pauses) is pauses


def test_a_reading_is_the_same_in_whichever_order_the_verdicts_came_and_through_a_checkpoint(tmp_path: Path) -> None:
    responses = [response(n % 5, 7 + n) for n in range(40)]
    said, guards = set(), {"abstention": at_once("stop", above=0.01)}
    for seed in range(5):
        shuffled = random.Random(seed).sample(responses, len(responses))
        watched = watch(tmp_path, guards)
        for each in shuffled[:20]:
            watched.judged(COHORT, each)
        watched = watch(tmp_path, guards, watched.state)
        for each in shuffled[20:]:
            watched.judged(COHORT, each)
        tally = watched.state.tally["abstention"]
        assert len(tally) == watched.state.cohorts == 40
        drifted = watched.without_update(0)
        assert drifted is not None
        said.add(drifted.alarm.reading)
    assert len(said) == 1


async def test_without_guards_nothing_is_kept_or_computed(tmp_path: Path) -> None:
    watched = watch(tmp_path, {})
    for _ in range(5):
        watched.judged(COHORT, response(2, 2))
    assert await watched.begin(pytest.fail, 0) is None
    assert await watched.updated(pytest.fail, 1) is None
    assert watched.state == WatchState()


def test_all_that_fires_at_once_is_told_and_a_stop_goes_before_a_pause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = {"abstention": "pause", "repetition": "stop", "entropy": "warn"}
    watched = watch(tmp_path, {name: at_once(action) for name, action in actions.items()})
    again = TokenCandidate("rollout-0", Origin.ROLLOUT, (1,) * 9, "", (-1.0,) * 9)
    for _ in range(3):
        watched.judged(replace(COHORT, candidates=(again,)), response(2, 2))
    drifted = watched.without_update(1)
    assert drifted is not None
    assert drifted.alarm.guard == "repetition"
    said = [line.split(":")[1] for line in capsys.readouterr().err.splitlines()]
    assert sorted(said) == [f" drift guard {name}" for name in ("abstention", "entropy", "repetition")]
