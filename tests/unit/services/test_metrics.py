from __future__ import annotations

import re
from typing import get_args

from prometheus_client.metrics import MetricWrapperBase

from preceptor_client.contract import Composite, JudgeResponse, RewriteOutcome, Status, Verdict
from preceptor_client.queue import TroubleKind
from preceptor_services.engine.errors import Kind
from preceptor_services.metrics import Metrics
from preceptor_services.parsing import Reading, Rung

LABELS = {
    "preceptor_http_requests": ("route", "code"),
    "preceptor_http_request_seconds": ("route",),
    "preceptor_refusals": ("reason",),
    "preceptor_caller_tokens": ("caller",),
    "preceptor_engine_failures": ("kind",),
    "preceptor_engine_ready": ("replica",),
    "preceptor_engine_circuit": ("replica",),
    "preceptor_engine_tokens": ("kind",),
    "preceptor_verdicts": ("axis", "status"),
    "preceptor_position_consistency_ratio": ("axis",),
    "preceptor_position_first_ratio": ("axis",),
    "preceptor_parsed_answers": ("axis", "rung"),
    "preceptor_unreadable_retries": ("axis",),
    "preceptor_verdict_cache_lookups": ("result",),
    "preceptor_rewrites": ("outcome",),
    "preceptor_rewrite_samples": ("finding",),
    "preceptor_worker_cohorts": ("result",),
    "preceptor_queue_errors": ("kind",),
    "preceptor_queue_depth": ("state",),
    "preceptor_batch_items": ("result",),
}
KNOWN = {
    "preceptor_refusals": {"no_key", "unknown_key", "requests", "tokens", "concurrency", "waiting"},
    "preceptor_engine_failures": set(get_args(Kind)),
    "preceptor_engine_tokens": {"prompt", "completion"},
    "preceptor_verdict_cache_lookups": {"hit", "miss"},
    "preceptor_rewrites": set(RewriteOutcome),
    "preceptor_worker_cohorts": {"settled", "superseded", "buried", "handed_back", "left"},
    "preceptor_queue_errors": set(get_args(TroubleKind)),
    "preceptor_batch_items": {"judged", "problem", "superseded"},
}
"""Values of labels that are there from the start."""
_UNITS = r"_(seconds|bytes|ratio|tokens)$"


def registered(metrics: Metrics) -> dict[str, MetricWrapperBase]:
    made = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    return {family.name: each for each in made for family in each.collect()}


def exposed(metrics: Metrics, label: str) -> set[str]:
    return set(re.findall(rf'\b{label}="([^"]*)"', metrics.exposition().decode()))


def test_the_labels_are_these_and_no_others() -> None:
    labels = {name: metric._labelnames for name, metric in registered(Metrics()).items() if metric._labelnames}
    assert labels == LABELS


def test_counters_with_known_values_are_there_before_anything_happens() -> None:
    found: dict[str, set[str]] = {}
    for name, metric in registered(Metrics()).items():
        for family in metric.collect():
            values = {value for sample in family.samples for value in sample.labels.values()}
            if values and family.type == "counter":
                found[name] = values
    assert found == KNOWN


def test_names_have_the_prefix_and_times_and_shares_their_unit() -> None:
    for name, metric in registered(Metrics()).items():
        assert name.startswith("preceptor_")
        if next(iter(metric.collect())).type == "histogram":
            assert re.search(_UNITS, name), name
            assert metric._kwargs["buckets"][0] >= 0, f"{name} has no sum, and so no mean"


def test_axes_and_rungs_have_no_values_but_those_that_are_known_whatever_a_request_brings() -> None:
    metrics = Metrics()
    metrics.know_axes(["style"])
    for axis in ("quality", "style", "made-up", "another"):
        metrics.count_repeated(axis, 1)
        metrics.count_readings(axis, [Reading(None, Rung.ABSTAIN), Reading("A", Rung.STRICT)])
    assert exposed(metrics, "axis") == {"quality", "style", "other"}
    assert 'preceptor_verdicts_total{axis="style",status="failed"} 0.0' in metrics.exposition().decode()
    assert exposed(metrics, "rung") == {"abstain", "strict"}


def test_a_judged_cohort_tells_its_verdicts_and_how_far_its_best_is_from_its_worst() -> None:
    metrics = Metrics()
    verdicts = (
        Verdict(candidate_id="a", axis="quality", status=Status.OK, score=0.75),
        Verdict(candidate_id="b", axis="quality", status=Status.OK, score=0.25),
        Verdict(candidate_id="c", axis="quality", status=Status.ABSTAINED, reason="x"),
    )
    composites = (
        Composite(candidate_id="a", score=0.75),
        Composite(candidate_id="b", score=0.25),
        Composite(candidate_id="c", score=None, reason="x"),
    )
    metrics.count_judged(JudgeResponse(cohort_id="c", verdicts=verdicts, axes={}, composites=composites, elapsed_s=0.1))
    metrics.count_judged(JudgeResponse(cohort_id="d", verdicts=verdicts[:1], axes={}, elapsed_s=0.1))
    text = metrics.exposition().decode()
    assert 'preceptor_verdicts_total{axis="quality",status="abstained"} 1.0' in text
    assert "preceptor_discrimination_ratio_sum 0.5" in text
    assert "preceptor_discrimination_ratio_count 1.0" in text
