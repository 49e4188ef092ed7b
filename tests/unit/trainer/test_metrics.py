from __future__ import annotations

import socket
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from preceptor_client.contract import Composite, JudgeResponse, Origin, Status, Verdict
from preceptor_client.queue import Trouble
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import MetricsConfig, TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import UpdateStats
from preceptor_trainer.metrics import Metrics, served
from preceptor_trainer.objectives.selection import Dropped
from preceptor_trainer.stall import Stall
from preceptor_trainer.telemetry import Telemetry

ORIGINAL = TokenCandidate("original", Origin.ORIGINAL, (1, 2, 3), "a")
ROLLOUT = TokenCandidate("rollout-0", Origin.ROLLOUT, (2, 3), "b", (-1.0, -1.0))
UPDATE = UpdateStats(loss=0.5, lr=1e-3, grad_norm=2.0, tokens=10)
ORIGINS = {"original", "rewrite", "rollout"}
GUARDS = {"held_out_nll", "entropy", "length", "repetition", "discrimination", "abstention"}
LABELS: dict[str, dict[str, set[str]]] = {
    "preceptor_trainer_cohorts": {"outcome": {"trained", "tied", "unjudged", "malformed", "dead", "unfit", "stale"}},
    "preceptor_trainer_buffer_cohorts": {"state": {"outstanding", "ready"}},
    "preceptor_trainer_stage_seconds": {
        "stage": {"sampling", "waiting", "updating", "guarding", "syncing", "saving"},
    },
    "preceptor_trainer_stalled_seconds": {
        "part": {"redis", "judges", "documents", "rewrite service", "policy engine", "queue"}
    },
    "preceptor_trainer_tokens": {"stage": {"sampling", "judging", "updating"}},
    "preceptor_trainer_score_ratio": {"axis": set(), "origin": set()},
    "preceptor_trainer_chosen": {"origin": ORIGINS},
    "preceptor_trainer_rejected": {"origin": ORIGINS},
    "preceptor_trainer_verdicts": {"status": {"ok", "abstained", "failed"}},
    "preceptor_trainer_rewrites": {
        "outcome": {"rewritten", "unchanged", "refused", "failed", "unfit", "unreachable", "empty", "malformed"}
    },
    "preceptor_trainer_redis_errors": {"kind": {"away", "full", "read_only"}},
    "preceptor_trainer_queue_events": {"event": {"resubmitted", "unknown"}},
    "preceptor_trainer_guard_reading": {"guard": set()},
    "preceptor_trainer_guard_readings_beyond": {"guard": set()},
    "preceptor_trainer_guard_alarms": {"guard": GUARDS, "action": {"warn", "pause", "stop", "clear"}},
}
"""Metric -> label -> the values that it has from the start."""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"preceptor_trainer_{name}", labels)


def cohort(version: int) -> PolicyCohort:
    scores = {"original": 0.25, "rollout-0": 0.75}
    judged = Judged(scores, {"quality": scores, "made-up": scores}, ROLLOUT, ORIGINAL)
    return PolicyCohort("c", Window(0, 0, (1,), (1,)), version, (ORIGINAL, ROLLOUT), judged)


def config(**changes: Any) -> TrainConfig:
    values = {"out": "out", "steps": 9, "cohorts_per_step": 4, "model": {"path": "p"}, "data": {"path": "d"}}
    return TrainConfig.model_validate({**values, "pool": {"rollouts": 1}, **changes})


def labels_of(metrics: Metrics) -> dict[str, dict[str, set[str]]]:
    found: dict[str, dict[str, set[str]]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            (family,) = metric.collect()
            found[family.name] = {
                name: {sample.labels[name] for sample in family.samples} for name in metric._labelnames
            }
    return found


def test_labels_and_the_values_that_they_have_from_the_start_are_these() -> None:
    assert labels_of(Metrics.of(config())) == LABELS


def test_whatever_happens_brings_no_other_values(tmp_path: Path) -> None:
    metrics = Metrics(["quality"])
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        for event in ("tied", "rewrite_unfit", "guard_entropy_warn", "guard_of_honour", "anything"):
            telemetry.count(event)
        with telemetry.clock("rewarding"):
            pass
        telemetry.step(0, [cohort(0)], UPDATE)
    axes = {"axis": {"quality"}, "origin": {"all", "original", "rollout"}}
    assert labels_of(metrics) == {**LABELS, "preceptor_trainer_score_ratio": axes}
    assert value(metrics, "cohorts_total", outcome="tied") == 1
    assert value(metrics, "rewrites_total", outcome="unfit") == 1
    assert value(metrics, "guard_alarms_total", guard="entropy", action="warn") == 1


def test_every_reason_to_drop_a_cohort_has_its_series() -> None:
    metrics = Metrics()
    for reason in Dropped:
        metrics.count(reason)
    assert [value(metrics, "cohorts_total", outcome=reason) for reason in Dropped] == [1] * len(Dropped)


def test_the_bounds_of_a_run_are_there_before_its_first_update() -> None:
    metrics = Metrics.of(config(run="mine", staleness={"limit": 2}))
    assert value(metrics, "info", run="mine", objective="dpo", engine="torch") == 1
    assert value(metrics, "last_step") == 9
    assert value(metrics, "staleness_limit_updates") == 2
    assert value(metrics, "buffer_slots") == 12


def test_an_update_tells_what_it_trained_on_how_old_that_was_and_who_won(tmp_path: Path) -> None:
    metrics = Metrics(["quality"])
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        telemetry.step(4, [cohort(4), cohort(2)], UPDATE)
    assert (value(metrics, "step"), value(metrics, "updates_total"), value(metrics, "loss")) == (5, 1, 0.5)
    assert value(metrics, "cohorts_total", outcome="trained") == 2
    assert value(metrics, "staleness_updates_sum") == 2
    assert value(metrics, "staleness_updates_bucket", le="0.0") == 1
    assert value(metrics, "score_ratio", axis="quality", origin="rollout") == 0.75
    assert (value(metrics, "chosen_total", origin="rollout"), value(metrics, "rejected_total", origin="original")) == (
        2,
        2,
    )
    assert value(metrics, "tokens_total", stage="updating") == 10


def test_axes_that_count_behind_a_control_alone_or_in_a_gate_alone_are_told(tmp_path: Path) -> None:
    gate = {"kind": "axis", "axis": "safety", "minimum": 0.0}
    kind = {"token": "a", "share": 0.5, "axes": {"kindness": 1.0}, "gates": [gate]}
    metrics = Metrics.of(config(controls=[kind, {"token": "b", "share": 0.5, "axes": {"quality": 1.0}}]))
    scores = {axis: {"rollout-0": 0.5} for axis in ("kindness", "safety", "quality", "factuality")}
    judged = Judged({}, scores, ROLLOUT, ORIGINAL)
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        telemetry.step(0, [replace(cohort(0), judged=judged)], UPDATE)
    told = {axis: value(metrics, "score_ratio", axis=axis, origin="rollout") for axis in scores}
    assert told == {"kindness": 0.5, "safety": 0.5, "quality": 0.5, "factuality": None}


def test_verdicts_tell_abstention_and_how_far_the_best_is_from_the_worst(tmp_path: Path) -> None:
    metrics = Metrics()
    verdicts = (
        Verdict(candidate_id="a", axis="quality", status=Status.OK, score=1.0),
        Verdict(candidate_id="b", axis="quality", status=Status.ABSTAINED, reason="x"),
    )
    composites = (Composite(candidate_id="a", score=1.0), Composite(candidate_id="b", score=0.25))
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        telemetry.judged(JudgeResponse(cohort_id="c", verdicts=verdicts, axes={}, composites=composites, elapsed_s=0.1))
        telemetry.sampled([cohort(0), cohort(0)])
    assert value(metrics, "verdicts_total", status="abstained") == 1
    assert value(metrics, "discrimination_ratio_sum") == 0.75
    assert value(metrics, "tokens_total", stage="sampling") == 4


def test_a_learner_that_waits_shows_it_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("preceptor_trainer.telemetry.time.monotonic", lambda: now)
    metrics = Metrics()
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        now = 10.0
        telemetry.stalled(Stall("judges", "out"), 10.0)
        assert value(metrics, "stalled_seconds_total", part="judges") == 10
        assert value(metrics, "idle_seconds_total") == 10
        now = 12.0
        with telemetry.clock("sampling"):
            now = 15.0
            telemetry.stalled(Stall("judges", "out"), 5.0)
        assert value(metrics, "idle_seconds_total") == 12
        assert value(metrics, "stage_seconds_sum", stage="sampling") == 3
        telemetry.trouble(Trouble("full", "why"))
        assert value(metrics, "redis_errors_total", kind="full") == 1


def test_guards_tell_their_last_reading_and_how_many_were_beyond_a_limit(tmp_path: Path) -> None:
    metrics = Metrics()
    with Telemetry(tmp_path, "r", 10, metrics) as telemetry:
        telemetry.read({"entropy": 1.5}, {"entropy": 2})
        telemetry.read({}, {"entropy": 2})
    assert value(metrics, "guard_reading", guard="entropy") == 1.5
    assert value(metrics, "guard_readings_beyond", guard="entropy") == 2
    with metrics.pausing():
        assert value(metrics, "paused") == 1
    assert value(metrics, "paused") == 0


def test_the_buffer_is_asked_when_it_is_scraped_and_no_longer_than_there_is_one() -> None:
    metrics = Metrics()
    held = {"outstanding": 3, "ready": 1}
    with metrics.holding(lambda state: held[state]):
        held["ready"] = 2
        assert value(metrics, "buffer_cohorts", state="ready") == 2
        assert value(metrics, "buffer_cohorts", state="outstanding") == 3
    assert value(metrics, "buffer_cohorts", state="outstanding") == 0


def test_a_saved_checkpoint_is_of_now() -> None:
    metrics = Metrics()
    metrics.checkpoint.set(0)
    metrics.spent("updating", 1.0)
    assert value(metrics, "checkpoint_timestamp_seconds") == 0
    metrics.spent("saving", 1.0)
    assert value(metrics, "checkpoint_timestamp_seconds") == pytest.approx(time.time(), abs=5)


def test_they_are_served_while_the_run_lasts_on_loopback() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(Metrics(), MetricsConfig(port=port)):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"preceptor_trainer_updates_total 0.0" in answer.read()
        message = rf"cannot listen at 127.0.0.1:{port} \(Address already in use\): set metrics.port"
        with pytest.raises(TrainError, match=message), served(Metrics(), MetricsConfig(port=port)):
            pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
