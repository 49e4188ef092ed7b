"""The contract, version 1: every message that crosses a process border, as strict pydantic models.

In: JSON over HTTP (`/v1/...`) or over the Redis queue; both carry the same models. Out: the same.
Guarantees: unknown fields, wrong types and oversized texts are refused with the field's name; a `Verdict` holds a score
if and only if its status is `ok`, so a failed judge call can never be read as a number. No I/O.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

API_VERSION = "v1"

MAX_TEXT_CHARS = 65_536
"""Longest prefix, suffix or candidate. A 2,048-token window of English is about 8,000 characters."""
MAX_CANDIDATES = 64
MAX_VOTES = 64

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$")]
AxisName = Annotated[str, Field(max_length=32, pattern=r"^[a-z][a-z0-9_]*$")]


class Message(BaseModel):
    """Base of every message: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(StrEnum):
    """The axes that ship with Preceptor. A rubric may name others: everywhere else an axis is a plain name."""

    QUALITY = "quality"
    """Which of two continuations reads better: pairwise, so only relative to its cohort."""
    SAFETY = "safety"
    """Is the continuation safe: pointwise, 0 to 1."""
    FACTUALITY = "factuality"
    """Is what it states true: pointwise, 1 no / 0.5 possible / 0 definite hallucination."""


class Origin(StrEnum):
    """Where a candidate comes from."""

    ORIGINAL = "original"
    REWRITE = "rewrite"
    ROLLOUT = "rollout"


class Status(StrEnum):
    """What became of a judgement."""

    OK = "ok"
    ABSTAINED = "abstained"
    """The teacher answered, but no vote could be read."""
    FAILED = "failed"
    """The teacher did not answer: a refused call, a time-out, the cohort's deadline."""


class Candidate(Message):
    """One continuation of a prefix. `id` is unique within its cohort."""

    id: Identifier
    origin: Origin = Origin.ROLLOUT
    text: Text


class Cohort(Message):
    """One prefix with all its candidates: the unit that is judged, queued, retried and trained on.

    `reference` is what rubrics that need one compare against (in training, the original suffix).
    """

    id: Identifier
    prefix: Text
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    reference: Text | None = None

    @model_validator(mode="after")
    def _candidate_ids_are_unique(self) -> Self:
        ids = [candidate.id for candidate in self.candidates]
        if len(set(ids)) != len(ids):
            raise ValueError("candidate ids must be unique within a cohort")
        return self


class Sampling(Message):
    """How the teacher is sampled when it judges. `votes` answers are drawn per question, in one request."""

    votes: Annotated[int, Field(strict=True, ge=1, le=MAX_VOTES)] = 1
    temperature: Annotated[float, Field(strict=True, ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(strict=True)] | None = None

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
    sampling: Sampling | None = None
    deadline_s: Annotated[float, Field(strict=True, gt=0, le=3600)] | None = None
    """Seconds from arrival after which what is still open is returned as `failed`."""

    @model_validator(mode="after")
    def _axes_are_unique(self) -> Self:
        if len(set(self.axes)) != len(self.axes):
            raise ValueError("axes must be unique")
        return self


class Votes(Message):
    """The answers behind a score.

    Pointwise: one count per sampled answer. Pairwise: one per comparison this candidate took part in, over both orders
    (`tied` includes pairs whose two orders disagree).
    """

    counts: dict[str, int] = Field(default_factory=dict)
    """Pointwise: verdict label -> answers. Pairwise: won / lost / tied -> comparisons."""
    unreadable: Annotated[int, Field(ge=0)] = 0
    """Answers that named no verdict."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Calls that brought no answer."""


class Verdict(Message):
    """The judgement of one candidate on one axis. `score` is in [0, 1], higher is better, and None unless `ok`."""

    candidate_id: Identifier
    axis: AxisName
    status: Status
    score: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    votes: Votes = Votes()
    reason: str | None = None
    """Why there is no score; None when there is one."""

    @model_validator(mode="after")
    def _score_goes_with_ok(self) -> Self:
        if (self.status is Status.OK) != (self.score is not None):
            raise ValueError("a verdict has a score if and only if its status is ok")
        return self


class Provenance(Message):
    """What produced the verdicts of one axis: enough to ask the same question again."""

    teacher: str
    revision: str
    """The teacher's weights: a revision, a content hash, or `unknown` if the engine does not say."""
    rubric: str
    rubric_hash: str
    sampling: Sampling


class Usage(Message):
    """What it cost."""

    calls: Annotated[int, Field(ge=0)] = 0
    """Questions put to the teacher (one per prompt, however many votes)."""
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class AxisReport(Message):
    """How one axis of one cohort was judged."""

    provenance: Provenance
    usage: Usage
    position_consistency: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Pairwise axes: share of pairs whose two orders agree; None when pointwise or when no pair was answered twice."""


class JudgeResponse(Message):
    """A verdict for every candidate on every axis asked for, in the request's order (axis by axis)."""

    cohort_id: Identifier
    verdicts: tuple[Verdict, ...]
    axes: dict[AxisName, AxisReport]
    elapsed_s: Annotated[float, Field(ge=0.0)]

    @property
    def usage(self) -> Usage:
        """Sum over the axes."""
        return sum((report.usage for report in self.axes.values()), Usage())


class RewriteOutcome(StrEnum):
    """What the teacher did with a suffix."""

    REWRITTEN = "rewritten"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """It declined or talked about the task; `rewrite` is None."""
    FAILED = "failed"
    """The teacher did not answer; `rewrite` is None."""


class RewriteRequest(Message):
    """Copy `suffix` if it is a good continuation of `prefix`, repair it at about the same length otherwise."""

    prefix: Text
    suffix: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=8192)] | None = None
    """Bound on the rewrite, in teacher tokens; the service's own bound if left out."""
    deadline_s: Annotated[float, Field(strict=True, gt=0, le=3600)] | None = None


class RewriteResponse(Message):
    """`rewrite` is a text if and only if the outcome is `rewritten` or `unchanged`."""

    outcome: RewriteOutcome
    rewrite: str | None
    provenance: Provenance
    usage: Usage
    reason: str | None = None

    @property
    def unchanged(self) -> bool:
        """The teacher kept the suffix word for word."""
        return self.outcome is RewriteOutcome.UNCHANGED

    @model_validator(mode="after")
    def _text_goes_with_outcome(self) -> Self:
        has_text = self.outcome in (RewriteOutcome.REWRITTEN, RewriteOutcome.UNCHANGED)
        if has_text != (self.rewrite is not None):
            raise ValueError("a rewrite has a text if and only if its outcome is rewritten or unchanged")
        return self


class Health(Message):
    """The answer of `/healthz` and `/readyz`."""

    status: Literal["ok", "starting", "unavailable"]
    detail: str | None = None


class Problem(BaseModel):
    """An error, as `application/problem+json` (RFC 9457)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = None


class JudgeTask(Message):
    """What the trainer puts on the queue: a request, and the run whose verdict stream the answer goes to."""

    run: Identifier
    request: JudgeRequest
