"""What a run counts, for Prometheus, and the port where it can be scraped. One `Metrics` per process, with a registry
of its own; docs/observability.md has the table.

In: what `Telemetry` is told, as it is told, and the row of each update. Out: `/metrics` at `metrics.port`, served from
a thread of its own for as long as the process has a run, a pause of it included. Counters begin at 0 with the process.
Guarantees: every counter is there from the start, so that a rate misses nothing; labels have the values below and the
axes of the configuration, whatever happens. Raises `TrainError` if the port cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from preceptor_client.contract import JudgeResponse, Origin, Status
from preceptor_client.queue import TroubleKind
from preceptor_trainer.config import MetricsConfig, TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.guards.config import GuardAction, Reading
from preceptor_trainer.stall import StalledPart

Stage = Literal["sampling", "waiting", "updating", "guarding", "syncing", "saving"]
"""What the trainer's seconds go to. `waiting` is the learner's, for a batch: the others may go on meanwhile."""
Outcome = Literal["trained", "tied", "unjudged", "malformed", "dead", "unfit", "stale"]
"""How a cohort ends; see `ledger`."""
Event = Literal["resubmitted", "unknown"]
"""resubmitted: a cohort that Redis had lost; unknown: an answer to none that is out."""
Rewritten = Literal["rewritten", "unchanged", "refused", "failed", "unfit", "unreachable", "empty", "malformed"]
Held = Literal["outstanding", "ready"]
"""Of the buffer: admitted and without verdicts, or to be trained on."""
TokenStage = Literal["sampling", "judging", "updating"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_UPDATES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32)
_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


class Metrics:
    """Every series of this process. `axes` are those that verdicts are asked for."""

    def __init__(self, axes: Collection[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self._info = Info("preceptor_trainer", "The run of this process.", registry=registry)
        self.step_reached = Gauge(
            "preceptor_trainer_step", "Updates made, those before a resume among them.", registry=registry
        )
        self.last_step = Gauge("preceptor_trainer_last_step", "Updates that the run is to make.", registry=registry)
        self.updates = Counter("preceptor_trainer_updates", "Updates made by this process.", registry=registry)
        self.loss = Gauge("preceptor_trainer_loss", "Loss of the last update.", registry=registry)
        self.gradient = Gauge(
            "preceptor_trainer_gradient_norm", "Norm of its gradient, before clipping.", registry=registry
        )
        self.learning_rate = Gauge("preceptor_trainer_learning_rate", "Its learning rate.", registry=registry)
        self.cohorts = _each(
            Counter("preceptor_trainer_cohorts", "Cohorts that ended, by how.", ["outcome"], registry=registry),
            get_args(Outcome),
        )
        self.staleness = Histogram(
            "preceptor_trainer_staleness_updates",
            "Of each cohort trained on, the updates between the weights that sampled it and its own.",
            buckets=_UPDATES,
            registry=registry,
        )
        self.staleness_limit = Gauge(
            "preceptor_trainer_staleness_limit_updates", "The bound on that.", registry=registry
        )
        self.buffer = _each(
            Gauge(
                "preceptor_trainer_buffer_cohorts",
                "Cohorts in the buffer: outstanding (admitted, without verdicts), ready (to be trained on).",
                ["state"],
                registry=registry,
            ),
            get_args(Held),
        )
        self.buffer_slots = Gauge(
            "preceptor_trainer_buffer_slots", "Cohorts that the buffer has room for.", registry=registry
        )
        self.stages = _each(
            Histogram(
                "preceptor_trainer_stage_seconds",
                "Time of each turn of a stage; syncing hands the weights to the policy engine, waiting is the "
                "learner's for a batch.",
                ["stage"],
                buckets=_SECONDS,
                registry=registry,
            ),
            get_args(Stage),
        )
        self.idle = Counter(
            "preceptor_trainer_idle_seconds",
            "Time in which the trainer neither sampled nor updated nor synced.",
            registry=registry,
        )
        self.stalled = _each(
            Counter(
                "preceptor_trainer_stalled_seconds",
                "Time in which the learner had nothing to train on, by the part that it waited for.",
                ["part"],
                registry=registry,
            ),
            get_args(StalledPart),
        )
        self.tokens = _each(
            Counter(
                "preceptor_trainer_tokens",
                "Tokens of the rollouts (sampling), read and written by the judges (judging), in the loss (updating).",
                ["stage"],
                registry=registry,
            ),
            get_args(TokenStage),
        )
        self.scores = Gauge(
            "preceptor_trainer_score_ratio",
            "Mean score of the last update's candidates, from 0 to 1, by axis and origin.",
            ["axis", "origin"],
            registry=registry,
        )
        self.chosen = _each(
            Counter("preceptor_trainer_chosen", "Candidates chosen in updates.", ["origin"], registry=registry), Origin
        )
        self.rejected = _each(
            Counter("preceptor_trainer_rejected", "Candidates rejected in updates.", ["origin"], registry=registry),
            Origin,
        )
        self.verdicts = _each(
            Counter("preceptor_trainer_verdicts", "Verdicts received.", ["status"], registry=registry), Status
        )
        self.discrimination = Histogram(
            "preceptor_trainer_discrimination_ratio",
            "Best composite score less the worst, of each judged cohort; 0 is a tie.",
            buckets=_RATIOS,
            registry=registry,
        )
        self.rewrites = _each(
            Counter(
                "preceptor_trainer_rewrites", "Windows that a rewrite was asked for.", ["outcome"], registry=registry
            ),
            get_args(Rewritten),
        )
        self.redis_errors = _each(
            Counter(
                "preceptor_trainer_redis_errors",
                "Calls to Redis that failed, and are repeated.",
                ["kind"],
                registry=registry,
            ),
            get_args(TroubleKind),
        )
        self.events = _each(
            Counter(
                "preceptor_trainer_queue_events",
                "Cohorts resubmitted because Redis had lost them; answers to unknown cohorts.",
                ["event"],
                registry=registry,
            ),
            get_args(Event),
        )
        self.readings = Gauge(
            "preceptor_trainer_guard_reading",
            "Last reading for the drift guards, in its own unit.",
            ["guard"],
            registry=registry,
        )
        self.beyond = Gauge(
            "preceptor_trainer_guard_readings_beyond",
            "Readings in a row beyond a limit of a drift guard that is on.",
            ["guard"],
            registry=registry,
        )
        self.alarms = _each(
            Counter("preceptor_trainer_guard_alarms", "What guards said.", ["guard", "action"], registry=registry),
            get_args(Reading),
            (*get_args(GuardAction), "clear"),
        )
        self.paused = Gauge(
            "preceptor_trainer_paused", "1 while a drift guard has the run wait for the operator.", registry=registry
        )
        self.checkpoint = Gauge(
            "preceptor_trainer_checkpoint_timestamp_seconds",
            "When the last checkpoint was written, or else when the process began.",
            registry=registry,
        )
        self.checkpoint.set_to_current_time()
        self._counted = {
            **{outcome: self.cohorts.labels(outcome) for outcome in get_args(Outcome)},
            **{event: self.events.labels(event) for event in get_args(Event)},
            **{f"redis_{kind}": self.redis_errors.labels(kind) for kind in get_args(TroubleKind)},
            **{f"rewrite_{outcome}": self.rewrites.labels(outcome) for outcome in get_args(Rewritten)},
            **{
                f"guard_{guard}_{action}": self.alarms.labels(guard, action)
                for guard in get_args(Reading)
                for action in (*get_args(GuardAction), "clear")
            },
        }
        self._axes = frozenset(axes)

    @classmethod
    def of(cls, config: TrainConfig) -> Metrics:
        """Those of this run."""
        metrics = cls(config.axes if config.judged else ())
        metrics._info.info({"run": config.run, "objective": config.objective.name, "engine": config.rollouts.engine})
        metrics.last_step.set(config.steps)
        metrics.staleness_limit.set(config.staleness.limit)
        metrics.buffer_slots.set((config.staleness.limit + 1) * config.cohorts_per_step)
        return metrics

    def count(self, what: str, by: int = 1) -> None:
        """An event, by its name in the rows; one that has no series is in the rows alone."""
        if what in self._counted:
            self._counted[what].inc(by)

    def spent(self, stage: str, seconds: float) -> None:
        """A stage has had a turn."""
        if stage in get_args(Stage):
            self.stages.labels(stage).observe(seconds)
        if stage == "saving":
            self.checkpoint.set_to_current_time()

    def read(self, readings: Mapping[Reading, float], beyond: Mapping[Reading, int]) -> None:
        """What the drift guards read, and how many readings in a row were beyond a limit."""
        for name, value in readings.items():
            self.readings.labels(name).set(value)
        for name, times in beyond.items():
            self.beyond.labels(name).set(times)

    def judged(self, response: JudgeResponse) -> None:
        """A response came, usable or not."""
        for verdict in response.verdicts:
            self.verdicts.labels(verdict.status).inc()
        self.tokens.labels("judging").inc(response.usage.tokens)
        scores = [each.score for each in response.composites if each.score is not None]
        if len(scores) >= 2:
            self.discrimination.observe(max(scores) - min(scores))

    def updated(self, row: Mapping[str, Any], staleness: Sequence[int]) -> None:
        """The row of an update, and how old each of its cohorts was."""
        self.step_reached.set(row["step"])
        self.updates.inc()
        self.loss.set(row["loss"])
        self.gradient.set(row["grad_norm"])
        self.learning_rate.set(row["lr"])
        self.cohorts.labels("trained").inc(row["cohorts"])
        self.tokens.labels("updating").inc(row["tokens"])
        for age in staleness:
            self.staleness.observe(age)
        for axis in self._axes & row["scores"].keys():
            for origin, score in row["scores"][axis].items():
                self.scores.labels(axis, origin).set(score)
        for name, counter in (("chosen", self.chosen), ("rejected", self.rejected)):
            for origin, count in row.get(name, {}).items():
                counter.labels(origin).inc(count)

    @contextmanager
    def holding(self, held: Callable[[Held], int]) -> Iterator[None]:
        """In the block, `held` says how full the buffer is; it is asked from another thread."""
        for state in get_args(Held):
            self.buffer.labels(state).set_function(lambda state=state: held(state))  # type: ignore[misc]
        try:
            yield
        finally:
            for state in get_args(Held):
                self.buffer.labels(state).set_function(lambda: 0)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """In the block, the run waits for the operator."""
        self.paused.set(1)
        try:
            yield
        finally:
            self.paused.set(0)


@contextmanager
def served(metrics: Metrics, config: MetricsConfig) -> Iterator[None]:
    """In the block, `/metrics` answers, if the configuration has a port for it."""
    if config.port is None:
        yield
        return
    try:
        server, thread = start_http_server(config.port, config.host, metrics.registry)
    except OSError as error:
        raise TrainError(
            f"cannot listen at {config.host}:{config.port} ({error.strerror or error}): set metrics.port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _each(metric: MetricT, *values: Iterable[str]) -> MetricT:
    """`metric` with a series for every combination of `values`."""
    for combination in product(*values):
        metric.labels(*combination)
    return metric
