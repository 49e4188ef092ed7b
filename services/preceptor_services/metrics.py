"""What a service counts, for Prometheus. One `Metrics` per process, with a registry of its own.

In: events from the engine, the judge, the rewriter, the HTTP side and the worker. Out: the text of `/metrics`. Labels
have few values by construction: axes come from the rubric set, routes from the app.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from preceptor_client.contract import JudgeResponse, RewriteResponse, Usage

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Every counter of this process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("preceptor_requests", "HTTP requests answered.", ["route", "code"], registry=registry)
        self.request_seconds = Histogram(
            "preceptor_request_seconds",
            "Time to answer an HTTP request.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.replays = Counter(
            "preceptor_idempotent_replays", "Requests answered from the work of an earlier one.", registry=registry
        )
        self.engine_calls = Counter("preceptor_engine_calls", "HTTP requests put to the engine.", registry=registry)
        self.engine_seconds = Histogram(
            "preceptor_engine_call_seconds", "Time of one request to the engine.", buckets=_SECONDS, registry=registry
        )
        self.engine_retries = Counter("preceptor_engine_retries", "Repeated attempts.", registry=registry)
        self.engine_failures = Counter(
            "preceptor_engine_failures", "Engine requests given up, by reason.", ["kind"], registry=registry
        )
        self.engine_ready = Gauge(
            "preceptor_engine_ready", "1 while this server of the engine answers.", ["replica"], registry=registry
        )
        self.engine_switches = Counter(
            "preceptor_engine_switches", "Calls repeated on another server of the engine.", registry=registry
        )
        self.engine_questions = Counter("preceptor_engine_questions", "Prompts put to the engine.", registry=registry)
        self.engine_tokens = Counter(
            "preceptor_engine_tokens", "Tokens read (prompt) and written (completion).", ["kind"], registry=registry
        )
        self.verdicts = Counter("preceptor_verdicts", "Verdicts given.", ["axis", "status"], registry=registry)
        self.judge_seconds = Histogram(
            "preceptor_cohort_seconds", "Time to judge one cohort.", buckets=_SECONDS, registry=registry
        )
        self.position_consistency = Histogram(
            "preceptor_position_consistency",
            "Per cohort, the share of pairs whose two orders agree.",
            ["axis"],
            buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
            registry=registry,
        )
        self.rewrites = Counter("preceptor_rewrites", "Rewrites given.", ["outcome"], registry=registry)
        self.cohorts = Counter(
            "preceptor_worker_cohorts", "Cohorts the worker is done with.", ["result"], registry=registry
        )
        self.in_hand = Gauge("preceptor_worker_in_hand", "Cohorts the worker is judging now.", registry=registry)
        self.queue_errors = Counter("preceptor_queue_errors", "Calls to Redis that failed.", registry=registry)
        self.queue_depth = Gauge(
            "preceptor_queue_depth",
            "Entries in the queue: waiting, in_flight, dead, verdicts.",
            ["state"],
            registry=registry,
        )

    def count_usage(self, usage: Usage) -> None:
        """What one engine request cost."""
        self.engine_questions.inc(usage.calls)
        self.engine_tokens.labels("prompt").inc(usage.prompt_tokens)
        self.engine_tokens.labels("completion").inc(usage.completion_tokens)

    def count_judged(self, response: JudgeResponse) -> None:
        """One judged cohort."""
        self.judge_seconds.observe(response.elapsed_s)
        for verdict in response.verdicts:
            self.verdicts.labels(verdict.axis, verdict.status.value).inc()
        for axis, report in response.axes.items():
            if report.position_consistency is not None:
                self.position_consistency.labels(axis).observe(report.position_consistency)

    def count_rewritten(self, response: RewriteResponse) -> None:
        """One rewrite."""
        self.rewrites.labels(response.outcome.value).inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
