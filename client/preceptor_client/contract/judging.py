"""Judging: what is asked of the judge, and what it answers. No I/O.

Guarantees: a `Verdict` holds a score if and only if its status is `ok`, so a failed judge call can never be read as a
number.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from preceptor_client.contract.base import (
    MAX_CANDIDATES,
    MAX_VOTES,
    AxisName,
    Count,
    Deadline,
    Identifier,
    Message,
    Share,
    TraceParent,
    Usage,
)
from preceptor_client.contract.cohort import Axis, Cohort
from preceptor_client.contract.composition import Composite, Composition
from preceptor_client.contract.rubric import RubricName, RubricSpec


class Status(StrEnum):
    """What became of a judgement."""

    OK = "ok"
    ABSTAINED = "abstained"
    """The teacher answered, but no vote could be read."""
    FAILED = "failed"
    """The teacher did not answer: a refused call, a time-out, the cohort's deadline."""


_OK = Status.OK
"""By a name of its own: to look a member up in its enum takes Python 3.11 as long as all else that checks a verdict."""


class ScheduleName(StrEnum):
    """Which pairs a pairwise rubric compares."""

    ALL_PAIRS = "all_pairs"
    """Every pair."""
    PIVOT = "pivot"
    """Each candidate against one: the original if there is one, else the first."""
    CIRCULAR = "circular"
    """Each candidate against the next, in a ring."""
    KNOCKOUT = "knockout"
    """A bracket of winners and one of losers."""
    SWISS = "swiss"
    """A few rounds between neighbours in standing."""
    ADAPTIVE = "adaptive"
    """Comparisons where best and worst are still in doubt."""


class Order(StrEnum):
    """In which order the two candidates of a comparison are shown."""

    BOTH = "both"
    """In both; orders that disagree are a tie."""
    RANDOM = "random"
    """In one, drawn by lot that the cohort's id decides."""


class Sampling(Message):
    """How the teacher is sampled when it judges. `votes` answers are drawn per question, in one request."""

    votes: Annotated[int, Field(strict=True, ge=1, le=MAX_VOTES)] = 1
    temperature: Annotated[float, Field(strict=True, ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None

    @model_validator(mode="after")
    def _several_votes_need_a_temperature(self) -> Self:
        if self.votes > 1 and self.temperature == 0.0:
            raise ValueError("votes > 1 at temperature 0 repeats one answer: set a temperature or votes=1")
        return self


class JudgeRequest(Message):
    """Judge `cohort` on `axes`. What is left out takes the service's own setting."""

    cohort: Cohort
    axes: Annotated[tuple[AxisName, ...], Field(min_length=1, max_length=16)] = (
        Axis.QUALITY,
        Axis.SAFETY,
        Axis.FACTUALITY,
    )
    rubrics: Annotated[dict[AxisName, RubricName | RubricSpec], Field(max_length=16)] = Field(default_factory=dict)
    """For these axes, another rubric than the service's default: one that it has, by name, or one that comes along."""
    schedule: ScheduleName | None = None
    """For pairwise rubrics."""
    order: Order | None = None
    """For pairwise rubrics; listwise ones show all candidates in one order more, or in one by lot."""
    budget: Annotated[int, Field(strict=True, ge=2, le=MAX_CANDIDATES * MAX_CANDIDATES)] | None = None
    """Questions that the adaptive schedule may ask per axis; if left out, a quarter of all pairs', and at most four
    a candidate."""
    sampling: Sampling | None = None
    composition: Composition | None = None
    """Adds a composite score per candidate to the answer."""
    cache: Literal["use", "bypass"] = "use"
    """Whether questions that were answered before may be answered from the verdict cache."""
    detail: bool = False
    """Adds the teacher's reasons and every single comparison to the answer."""
    deadline_s: Deadline | None = None
    """Seconds from arrival after which what is still open is returned as `failed`."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.axes)) != len(self.axes):
            raise ValueError("axes must be unique")
        for axis, rubric in self.rubrics.items():
            if axis not in self.axes:
                raise ValueError(f"rubrics: {axis} is not among the axes asked for")
            if isinstance(rubric, RubricSpec) and rubric.axis != axis:
                raise ValueError(f"rubrics: the rubric for {axis} judges the axis {rubric.axis}")
        if self.composition and (missing := [axis for axis in self.composition.axes if axis not in self.axes]):
            raise ValueError(f"composition: {', '.join(missing)} is not among the axes asked for")
        return self


class Votes(Message):
    """The answers behind a score.

    Pointwise: one count per sampled answer. Pairwise: one per candidate that this one was compared with, in whatever
    orders (`tied` includes pairs whose two orders disagree). Listwise: `placed 1`, `placed 2`, ... or `best` and
    `not best`.
    """

    counts: dict[str, int] = Field(default_factory=dict)
    """Pointwise: verdict label -> answers. Pairwise: won / lost / tied -> candidates. Listwise: place -> answers."""
    unreadable: Count = 0
    """Answers that named no verdict."""
    failed: Count = 0
    """Calls that brought no answer."""


class Verdict(Message):
    """The judgement of one candidate on one axis. `score` is in [0, 1], higher is better, and None unless `ok`."""

    candidate_id: Identifier
    axis: AxisName
    status: Status
    score: Share | None = None
    votes: Votes = Votes()
    reason: str | None = None
    """Why there is no score; None when there is one."""
    rationale: str | None = None
    """What the teacher gave as its reason, when `detail` was asked for. Text of a model: untrusted."""

    @model_validator(mode="after")
    def _score_goes_with_ok(self) -> Self:
        if (self.status is _OK) != (self.score is not None):
            raise ValueError("a verdict has a score if and only if its status is ok")
        return self


class Comparison(Message):
    """One pairwise question, in the order in which the teacher saw the two."""

    first: Identifier
    second: Identifier
    outcome: Literal["first", "second", "tie", "unreadable", "failed"]
    rationale: str | None = None


class Provenance(Message):
    """What produced the verdicts of one axis: enough to ask the same question again."""

    teacher: str
    revision: str
    """The teacher's weights: a revision, a content hash, or `unknown` if the engine does not say."""
    rubric: str
    rubric_hash: str
    sampling: Sampling
    schedule: ScheduleName | None = None
    order: Order | None = None


class AxisReport(Message):
    """How one axis of one cohort was judged."""

    provenance: Provenance
    usage: Usage
    position_consistency: Share | None = None
    """Pairwise axes: share of pairs whose two orders agree; None when pointwise or when no pair was answered twice."""
    position_bias: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Pairwise axes: share of answers for the candidate shown first, less the share for the one shown second."""
    comparisons: tuple[Comparison, ...] = ()
    """Every comparison, when `detail` was asked for."""


class PanelMember(Message):
    """What one judge of a panel said."""

    verdicts: tuple[Verdict, ...]
    axes: dict[AxisName, AxisReport]


class JudgeResponse(Message):
    """A verdict for every candidate on every axis asked for, in the request's order (axis by axis)."""

    cohort_id: Identifier
    verdicts: tuple[Verdict, ...]
    axes: dict[AxisName, AxisReport]
    composites: tuple[Composite, ...] = ()
    """One per candidate, in the cohort's order, when a composition was asked for."""
    panel: dict[str, PanelMember] = Field(default_factory=dict)
    """Where several judges sat: each one's own verdicts, by its name."""
    elapsed_s: Annotated[float, Field(ge=0.0)]

    @property
    def usage(self) -> Usage:
        """Sum over the axes."""
        return sum((report.usage for report in self.axes.values()), Usage())

    @property
    def final(self) -> bool:
        """Whether asking again could bring nothing better: no call to the teacher failed."""
        return all(verdict.status is not Status.FAILED for verdict in self.verdicts)


class JudgeTask(Message):
    """What the trainer puts on the queue: a request, and the run whose verdict stream the answer goes to."""

    run: Identifier
    request: JudgeRequest
    trace: TraceParent = None
