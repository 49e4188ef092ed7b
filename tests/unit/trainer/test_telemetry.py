from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor_client.contract import (
    AxisReport,
    JudgeResponse,
    Origin,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_client.queue import Trouble
from preceptor_trainer.cohorts import Control, Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.learner import UpdateStats
from preceptor_trainer.stall import Stall
from preceptor_trainer.telemetry import Telemetry

ORIGINAL = TokenCandidate("original", Origin.ORIGINAL, (1,), "a")
ROLLOUT = TokenCandidate("rollout-0", Origin.ROLLOUT, (2,), "b", (-1.0,))
UPDATE = UpdateStats(loss=1 / 3, lr=1e-3, grad_norm=2.0, tokens=10, figures={"margin": 0.5})


def cohort(version: int, original: float, rollout: float) -> PolicyCohort:
    scores = {"original": original, "rollout-0": rollout}
    chosen, rejected = (ORIGINAL, ROLLOUT) if original > rollout else (ROLLOUT, ORIGINAL)
    judged = Judged(scores, {"quality": scores}, chosen, rejected)
    return PolicyCohort("c", Window(0, 0, (1,), (1,)), version, (ORIGINAL, ROLLOUT), judged)


def response() -> JudgeResponse:
    provenance = Provenance(teacher="t", revision="r", rubric="x", rubric_hash="h", sampling=Sampling())
    verdicts = (
        Verdict(candidate_id="a", axis="quality", status=Status.OK, score=1.0),
        Verdict(candidate_id="b", axis="quality", status=Status.FAILED, reason="x"),
        Verdict(candidate_id="c", axis="quality", status=Status.ABSTAINED, reason="x"),
    )
    report = AxisReport(provenance=provenance, usage=Usage(calls=6, prompt_tokens=50, completion_tokens=7))
    return JudgeResponse(cohort_id="c", verdicts=verdicts, axes={"quality": report}, elapsed_s=0.1)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_step_says_what_was_trained_on_and_how_old_it_was(tmp_path: Path) -> None:
    with Telemetry(tmp_path, "r", 10) as telemetry:
        telemetry.step(2, [cohort(2, 1.0, 0.0), cohort(1, 0.25, 0.75)], UPDATE)
        (line,) = lines(tmp_path)
    assert (line["step"], line["loss"], line["margin"], line["tokens"]) == (3, 0.333333, 0.5, 10)
    assert line["scores"] == {"quality": {"all": 0.5, "original": 0.625, "rollout": 0.375}}
    assert line["chosen"] == line["rejected"] == {"original": 1, "rollout": 1}
    assert line["staleness"] == {"mean": 0.5, "max": 1}


def test_sums_start_anew_with_each_line_and_add_up_in_the_summary(tmp_path: Path) -> None:
    with Telemetry(tmp_path, "r", 10) as telemetry:
        telemetry.judged(response())
        telemetry.count("tied")
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
        telemetry.judged(response())
        telemetry.judged(response())
        telemetry.step(1, [cohort(1, 1.0, 0.0)], UPDATE)
        telemetry.step(2, [cohort(2, 1.0, 0.0)], UPDATE)
    first, second, third = lines(tmp_path)
    assert first["judge"] == {"cohorts": 1, "calls": 6, "tokens": 57, "verdicts": 3, "abstained": 1, "failed": 1}
    assert (first["events"], second["events"]) == ({"tied": 1}, {})
    assert second["judge"]["calls"] == 12
    assert third["judge"] == dict.fromkeys(first["judge"], 0)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judge"] == {name: 3 * value for name, value in first["judge"].items()}
    assert summary["chosen"] == {"original": 3}
    assert summary["trained"] == {"steps": 3, "cohorts": 3, "tokens": 30}


def test_what_happened_after_the_last_step_is_in_the_summary_too(tmp_path: Path) -> None:
    with Telemetry(tmp_path, "r", 10) as telemetry:
        telemetry.judged(response())
        telemetry.count("tied")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judge"]["calls"] == 6
    assert summary["events"] == {"tied": 1}


def test_clocks_add_up_per_name_even_if_the_work_fails(tmp_path: Path) -> None:
    with Telemetry(tmp_path, "r", 10) as telemetry:
        with telemetry.clock("updating"):
            pass
        with pytest.raises(KeyError), telemetry.clock("sampling"):
            raise KeyError
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
    assert set(lines(tmp_path)[0]["seconds"]) == {"updating", "sampling", "idle"}


def test_idle_is_the_time_in_which_the_trainer_neither_samples_nor_updates_nor_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("preceptor_trainer.telemetry.time.monotonic", lambda: now)
    with Telemetry(tmp_path, "r", 10) as telemetry:
        now = 2.0
        with telemetry.clock("sampling"):
            now = 3.0
            with telemetry.clock("updating"):
                now = 5.0
            now = 6.0
        with telemetry.clock("waiting"):
            now = 9.0
        with telemetry.clock("syncing"):
            now = 10.0
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
    seconds = {"sampling": 4.0, "updating": 2.0, "waiting": 3.0, "syncing": 1.0, "idle": 2.0 + 3.0}
    assert lines(tmp_path)[0]["seconds"] == seconds


def test_without_a_terminal_there_is_a_line_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Telemetry(tmp_path, "my-run", 100) as telemetry:
        for version in range(100):
            telemetry.step(version, [cohort(version, 1.0, 0.0)], UPDATE)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("my-run: step 1/100, loss 0.333")
    assert printed[-1].startswith("my-run: step 100/100")
    assert len(printed) < 10


def test_a_resumed_run_goes_on_in_its_file_and_its_sums(tmp_path: Path) -> None:
    for version in range(2):
        with Telemetry(tmp_path, "r", 2) as telemetry:
            telemetry.judged(response())
            telemetry.count("tied")
            telemetry.step(version, [cohort(version, 1.0, 0.0)], UPDATE)
    first, second = lines(tmp_path)
    assert (first["step"], second["step"]) == (1, 2)
    assert second["elapsed_s"] >= first["elapsed_s"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judge"]["calls"] == 12
    assert summary["events"] == {"tied": 2}
    assert summary["chosen"] == {"original": 2}
    assert summary["trained"] == {"steps": 2, "cohorts": 2, "tokens": 20}


def test_trouble_with_redis_is_counted_at_every_try_and_told_when_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Telemetry(tmp_path, "r", 2) as telemetry:
        for kind in ("away", "away", "full"):
            telemetry.trouble(Trouble(kind, "why"))
        assert telemetry.redis_trouble == "Redis is full: why"
        telemetry.trouble(None)
        assert telemetry.redis_trouble is None
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
    assert lines(tmp_path)[0]["events"] == {"redis_away": 2, "redis_full": 1}
    told = [line for line in capsys.readouterr().err.splitlines() if "Redis" in line]
    assert told == [
        "r: Redis is away: why; waiting for it",
        "r: Redis is full: why; waiting for it",
        "r: Redis answers again",
    ]


def test_what_the_learner_waited_for_is_told_and_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Telemetry(tmp_path, "r", 2) as telemetry:
        for _ in range(2):
            telemetry.stalled(Stall("judges", "12 cohorts are out"), 10.0)
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
    assert lines(tmp_path)[0]["stalled"] == {"judges": 20.0}
    assert "r: waiting for judges: 12 cohorts are out" in capsys.readouterr().err


def test_what_the_guards_read_is_in_the_next_line_alone(tmp_path: Path) -> None:
    with Telemetry(tmp_path, "r", 2) as telemetry:
        telemetry.read({"entropy": 1.5}, {})
        telemetry.read({"entropy": 1.25, "held_out_nll": float("inf")}, {})
        telemetry.step(0, [cohort(0, 1.0, 0.0)], UPDATE)
        telemetry.step(1, [cohort(1, 1.0, 0.0)], UPDATE)
    first, second = lines(tmp_path)
    assert first["guards"] == {"entropy": 1.25, "held_out_nll": None}
    assert "guards" not in second


def test_rewards_by_control_are_in_the_lines_and_go_on_after_a_resume(tmp_path: Path) -> None:
    for version, score in enumerate((0.25, 0.75)):
        with Telemetry(tmp_path, "r", 2) as telemetry:
            controlled = replace(cohort(version, 0.0, score), control=Control("<safe>", 9))
            telemetry.step(version, [controlled], UPDATE)
    scores = {"composite": 0.75, "quality": 0.75}
    assert lines(tmp_path)[1]["controls"] == {"<safe>": {"cohorts": 1, "scores": scores}}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["controls"] == {"<safe>": {"cohorts": 2, "scores": dict.fromkeys(scores, 0.5)}}
