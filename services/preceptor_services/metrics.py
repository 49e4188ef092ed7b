"""What a service counts, for Prometheus. One `Metrics` per process, with a registry of its own; docs/observability.md
has the table.

In: events from the engine, the judge, the rewriter, the HTTP side and the worker. Out: the text of `/metrics`. Labels
have few values by construction: axes come from the rubric set, routes from the app, callers from the keys file. Where
the values are known, each counter is there from the start, so that a rate misses nothing.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from preceptor_client.contract import Axis, JudgeResponse, RewriteOutcome, RewriteResponse, Status, Usage
from preceptor_client.queue import QueueStatus, TroubleKind
from preceptor_services.parsing import OrderReading, Reading

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_REFUSALS = ("no_key", "unknown_key", "requests", "tokens", "concurrency", "waiting")
_ENGINE_FAILURES = ("unreachable", "timeout", "overloaded", "broken", "rejected")
_WORKER_RESULTS = ("settled", "superseded", "buried", "handed_back", "left")
MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


class Metrics:
    """Every counter of this process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._axes: set[str] = set(Axis)
        self.requests = Counter(
            "preceptor_http_requests", "HTTP requests answered.", ["route", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "preceptor_http_request_seconds",
            "Time to answer an HTTP request.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.replays = Counter(
            "preceptor_idempotent_replays", "Requests answered from the work of an earlier one.", registry=registry
        )
        self.refusals = _each(
            Counter(
                "preceptor_refusals",
                "Requests refused at the door: no_key, unknown_key, requests, tokens, concurrency, waiting.",
                ["reason"],
                registry=registry,
            ),
            _REFUSALS,
        )
        self.caller_tokens = Counter(
            "preceptor_caller_tokens",
            "Tokens read and written for each API key, by its name.",
            ["caller"],
            registry=registry,
        )
        self.limit_errors = Counter(
            "preceptor_limit_errors", "Rate limits that could not be looked up in Redis.", registry=registry
        )
        self.engine_calls = Counter("preceptor_engine_calls", "HTTP requests put to the engine.", registry=registry)
        self.engine_seconds = Histogram(
            "preceptor_engine_call_seconds", "Time of one request to the engine.", buckets=_SECONDS, registry=registry
        )
        self.engine_retries = Counter("preceptor_engine_retries", "Repeated attempts.", registry=registry)
        self.engine_failures = _each(
            Counter("preceptor_engine_failures", "Engine requests given up, by reason.", ["kind"], registry=registry),
            _ENGINE_FAILURES,
        )
        self.engine_ready = Gauge(
            "preceptor_engine_ready", "1 while this server of the engine answers.", ["replica"], registry=registry
        )
        self.engine_circuit = Enum(
            "preceptor_engine_circuit",
            "Circuit breaker of this server: closed (in use), open (left alone), half_open (being tried).",
            ["replica"],
            states=["closed", "half_open", "open"],
            registry=registry,
        )
        self.engine_switches = Counter(
            "preceptor_engine_switches", "Calls repeated on another server of the engine.", registry=registry
        )
        self.engine_questions = Counter("preceptor_engine_questions", "Prompts put to the engine.", registry=registry)
        self.engine_tokens = _each(
            Counter(
                "preceptor_engine_tokens", "Tokens read (prompt) and written (completion).", ["kind"], registry=registry
            ),
            ("prompt", "completion"),
        )
        self.verdicts = Counter("preceptor_verdicts", "Verdicts given.", ["axis", "status"], registry=registry)
        self.judge_seconds = Histogram(
            "preceptor_judge_cohort_seconds", "Time to judge one cohort.", buckets=_SECONDS, registry=registry
        )
        self.position_consistency = Histogram(
            "preceptor_position_consistency_ratio",
            "Per cohort, the share of pairs whose two orders agree.",
            ["axis"],
            buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
            registry=registry,
        )
        # Not the bias itself: a histogram has no sum if what it observes may be negative.
        self.first_position = Histogram(
            "preceptor_position_first_ratio",
            "Per cohort, the share of answers for the candidate shown first; ties count half, 0.5 is no bias.",
            ["axis"],
            buckets=(0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0),
            registry=registry,
        )
        self.discrimination = Histogram(
            "preceptor_discrimination_ratio",
            "Best composite score less the worst, of each cohort that has two; 0 is a tie.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            registry=registry,
        )
        self.parsed_answers = Counter(
            "preceptor_parsed_answers",
            "Answers by the rung of the parse ladder on which they were read.",
            ["axis", "rung"],
            registry=registry,
        )
        self.unreadable_retries = Counter(
            "preceptor_unreadable_retries",
            "Questions put again because no answer named a verdict.",
            ["axis"],
            registry=registry,
        )
        self.cache_lookups = _each(
            Counter(
                "preceptor_verdict_cache_lookups",
                "Questions looked up in the verdict cache: hit or miss.",
                ["result"],
                registry=registry,
            ),
            ("hit", "miss"),
        )
        self.cache_errors = Counter(
            "preceptor_verdict_cache_errors", "Calls of the verdict cache to Redis that failed.", registry=registry
        )
        self.rewrites = _each(
            Counter("preceptor_rewrites", "Rewrites given.", ["outcome"], registry=registry),
            RewriteOutcome,
        )
        self.rewrite_samples = Counter(
            "preceptor_rewrite_samples",
            "Rewrites drawn, by what the checks found: usable, or what is wrong.",
            ["finding"],
            registry=registry,
        )
        self.cohorts = _each(
            Counter(
                "preceptor_worker_cohorts",
                "Cohorts the worker is done with: settled, superseded (ended or withdrawn elsewhere), buried (no "
                "teacher could judge it), handed_back (engine lost, or worker stopped), left (to its lease).",
                ["result"],
                registry=registry,
            ),
            _WORKER_RESULTS,
        )
        self.in_hand = Gauge("preceptor_worker_in_hand", "Cohorts the worker is judging now.", registry=registry)
        self.queue_errors = _each(
            Counter(
                "preceptor_queue_errors",
                "Calls to the Redis of queue or batches that failed, and are repeated: away, full, read_only.",
                ["kind"],
                registry=registry,
            ),
            get_args(TroubleKind),
        )
        self.queue_depth = Gauge(
            "preceptor_queue_depth",
            "Cohorts in the queue over all runs: waiting, in_flight, answered (and not yet taken in), dead.",
            ["state"],
            registry=registry,
        )
        self.queue_oldest = Gauge(
            "preceptor_queue_oldest_seconds",
            "Age of the oldest cohort that waits or is in flight, 0 if there is none.",
            registry=registry,
        )

        self.batch_items = _each(
            Counter(
                "preceptor_batch_items",
                "Items of batches that this process is done with: judged, problem, superseded.",
                ["result"],
                registry=registry,
            ),
            ("judged", "problem", "superseded"),
        )
        self.batch_items_in_hand = Gauge(
            "preceptor_batch_items_in_hand", "Items of batches that this process is judging now.", registry=registry
        )
        self.batch_items_waiting = Gauge(
            "preceptor_batch_items_waiting", "Items of batches without a result, over all replicas.", registry=registry
        )

    def count_usage(self, usage: Usage) -> None:
        """What one engine request cost."""
        self.engine_questions.inc(usage.calls)
        self.engine_tokens.labels("prompt").inc(usage.prompt_tokens)
        self.engine_tokens.labels("completion").inc(usage.completion_tokens)

    def count_judged(self, response: JudgeResponse) -> None:
        """One judged cohort."""
        self.judge_seconds.observe(response.elapsed_s)
        scores = [each.score for each in response.composites if each.score is not None]
        if len(scores) >= 2:
            self.discrimination.observe(max(scores) - min(scores))
        for (axis, status), count in Counts((verdict.axis, verdict.status) for verdict in response.verdicts).items():
            self.verdicts.labels(self._axis(axis), status.value).inc(count)
        for axis, report in response.axes.items():
            if report.position_consistency is not None:
                self.position_consistency.labels(self._axis(axis)).observe(report.position_consistency)
            if report.position_bias is not None:
                self.first_position.labels(self._axis(axis)).observe((1 + report.position_bias) / 2)

    def count_readings(self, axis: str, readings: Iterable[Reading | OrderReading]) -> None:
        """What was read in the answers to some questions."""
        for rung, count in Counts(reading.rung for reading in readings).items():
            self.parsed_answers.labels(self._axis(axis), rung.value).inc(count)

    def count_repeated(self, axis: str, questions: int) -> None:
        """Questions put again because no answer named a verdict."""
        self.unreadable_retries.labels(self._axis(axis)).inc(questions)

    def know_axes(self, axes: Iterable[str]) -> None:
        """The axes that are told apart; those that requests bring besides count as `other`."""
        for axis in axes:
            self._axes.add(axis)
            self.unreadable_retries.labels(axis)
            for status in Status:
                self.verdicts.labels(axis, status.value)

    def _axis(self, axis: str) -> str:
        return axis if axis in self._axes else "other"

    def count_samples(self, findings: Iterable[str]) -> None:
        """The rewrites drawn for one request: `usable`, or the kind of fault."""
        for finding in findings:
            self.rewrite_samples.labels(finding).inc()

    def count_rewritten(self, response: RewriteResponse) -> None:
        """One rewrite."""
        self.rewrites.labels(response.outcome.value).inc()

    def show_queue(self, status: QueueStatus) -> None:
        """How full the queue is. Runs are not told apart: their names have no bound."""
        answered = sum(run.answered for run in status.runs.values())
        for state, depth in (
            ("waiting", status.waiting),
            ("in_flight", status.in_flight),
            ("answered", answered),
            ("dead", status.dead),
        ):
            self.queue_depth.labels(state).set(depth)
        self.queue_oldest.set(status.oldest_s or 0.0)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


def _each(metric: MetricT, values: Iterable[str]) -> MetricT:
    """`metric` with a series for each of `values`."""
    for value in values:
        metric.labels(value)
    return metric
