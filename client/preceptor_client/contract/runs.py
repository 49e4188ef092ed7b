"""What a training run shows of itself: figures, and cohorts that have ended. No I/O.

The trainer publishes it (see `preceptor_client.board`), the services answer it at `/v1/runs`, their page draws it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue

from preceptor_client.contract.base import AxisName, Count, Identifier, Message
from preceptor_client.contract.cohort import Cohort
from preceptor_client.contract.judging import JudgeResponse

MAX_ROWS = 500
MAX_COHORTS = 50
"""Most entries in one answer; who wants more asks again, after the last."""

Mark = Annotated[str, Field(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$")]
"""The place of an entry among the others of its kind."""
Instant = Annotated[float, Field(ge=0)]
"""Seconds since 1970."""


class RunState(StrEnum):
    """What its trainer last said of a run. One that was killed says nothing: its `seen_at` grows old."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """By a signal, or to pause; it can be resumed."""
    FAILED = "failed"
    """By an error, or by a drift guard."""


class RunInfo(Message):
    """A run as it stands. Names and figures; no texts, no paths, no addresses."""

    run: Identifier
    """What Redis knows it by."""
    name: Identifier
    """What its configuration calls it."""
    state: RunState
    started_at: Instant
    """This part of it: a resumed run starts again."""
    seen_at: Instant
    """The trainer's last word, which comes every few seconds."""
    step: Count
    steps: Count
    objective: str
    axes: dict[AxisName, float]
    """Axis -> weight."""
    cohorts_per_step: Count
    rollouts: Count
    rewrites: bool
    """Whether windows are rewritten."""
    staleness_limit: Count
    waiting_for: str | None = None
    """The part that the learner has waited for since its last step, once it has waited long."""
    every: Count
    """One in so many cohorts is shown; 0: none is."""


class RunQueue(Message):
    """The queue: of a run, or of all."""

    waiting: Count = 0
    in_flight: Count = 0
    answered: Count = 0
    """With an outcome that the trainer has not taken yet."""
    dead: Count = 0
    oldest_s: float | None = None
    """Age of the oldest that has no outcome."""


class RunOnBoard(Message):
    """A run, and what it has in the queue."""

    info: RunInfo
    queue: RunQueue


class RunList(Message):
    """The answer of `GET /v1/runs`: the runs heard of last come first."""

    at: Instant
    """By the service's clock."""
    runs: tuple[RunOnBoard, ...]
    queue: RunQueue
    workers: Count


class RunRows(Message):
    """The answer of `GET /v1/runs/{run}/rows`: lines of the run's `metrics.jsonl`, one a step, oldest first."""

    rows: Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=MAX_ROWS)]
    next: Mark
    """Ask again after this one; nothing is left once no rows come."""


class EndedCohort(Message):
    """A cohort that was trained on or dropped, with what was judged of it."""

    cohort: Cohort
    outcome: str
    """trained, or why it was dropped: tied, unjudged, malformed, dead, unfit, stale."""
    step: Count | None = None
    """The update, from 1, that trained on it."""
    version: Count
    """Updates behind the weights that sampled it."""
    reason: str | None = None
    """Of what was dropped."""
    scores: dict[Identifier, float] = Field(default_factory=dict)
    """Candidate -> composite score."""
    chosen: Identifier | None = None
    rejected: Identifier | None = None
    response: JudgeResponse | None = None
    """None if no judge answered."""
    clipped: bool = False
    """Whether texts or comparisons were left out to keep it small."""


class RunCohorts(Message):
    """The answer of `GET /v1/runs/{run}/cohorts`, oldest first."""

    cohorts: Annotated[tuple[EndedCohort, ...], Field(max_length=MAX_COHORTS)]
    next: Mark
    """Ask again after this one; nothing is left once no cohorts come."""
