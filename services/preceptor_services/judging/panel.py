"""Several judges on one cohort, and one verdict from theirs.

In: a `JudgeRequest`. Out: a `JudgeResponse` whose scores combine those of all members and which keeps every member's
own verdicts. Guarantees: a member that failed or abstained has no say; below the quorum a verdict has no score. Raises
`UnjudgeableError` if any member cannot judge what is asked, `EngineError` when no member's engine has ever been ready,
or, for who can ask again later (`whole`), when a verdict failed and an engine was lost.
Waits for all members.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from statistics import fmean, multimode
from typing import Literal

from preceptor_client.contract import (
    AxisReport,
    JudgeRequest,
    JudgeResponse,
    PanelMember,
    Status,
    Usage,
    Verdict,
    Votes,
)
from preceptor_services.engine import EngineError
from preceptor_services.judging.judge import Judge, composites_of
from preceptor_services.priority import Priority
from preceptor_services.rubrics import Rubric
from preceptor_services.settings import PanelSettings

Combine = Literal["mean", "majority", "minimum"]


class Panel:
    """A judge made of judges."""

    def __init__(self, members: Mapping[str, Judge], settings: PanelSettings) -> None:
        self._members = members
        self._combine: Combine = settings.combine
        self._quorum = settings.quorum or len(members)

    def check(self, request: JudgeRequest) -> list[Rubric]:
        """The first member's rubric for every axis. Raises UnjudgeableError if a member cannot judge what is asked."""
        rubrics = [member.check(request) for member in self._members.values()]
        return rubrics[0]

    async def judge(
        self, request: JudgeRequest, *, priority: Priority = Priority.INTERACTIVE, whole: bool = False
    ) -> JudgeResponse:
        """The verdicts of all members as one. With `whole`, none that is `failed` because an engine was lost."""
        self.check(request)
        answers = await asyncio.gather(
            *(member.judge(request, priority=priority, whole=whole) for member in self._members.values()),
            return_exceptions=True,
        )
        responses: dict[str, JudgeResponse] = {}
        absent: dict[str, EngineError] = {}
        for name, answer in zip(self._members, answers, strict=True):
            if isinstance(answer, EngineError):
                absent[name] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                responses[name] = answer
        if not responses:
            raise next(iter(absent.values()))
        voices = [
            *(response.verdicts for response in responses.values()),
            *(_silence(request, f"{name}: {error}") for name, error in absent.items()),
        ]
        verdicts = [
            combined(same, self._combine, self._quorum, detail=request.detail) for same in zip(*voices, strict=True)
        ]
        if whole and absent and any(verdict.status is Status.FAILED for verdict in verdicts):
            raise next(iter(absent.values()))
        reports = [response.axes for response in responses.values()]
        return JudgeResponse(
            cohort_id=request.cohort.id,
            verdicts=tuple(verdicts),
            axes={axis: _joint([report[axis] for report in reports]) for axis in request.axes},
            composites=composites_of(request, verdicts),
            panel={
                name: PanelMember(verdicts=response.verdicts, axes=response.axes)
                for name, response in responses.items()
            },
            elapsed_s=max(response.elapsed_s for response in responses.values()),
        )


def combined(verdicts: Sequence[Verdict], how: Combine, quorum: int, *, detail: bool = False) -> Verdict:
    """One verdict on one candidate from those of several judges."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    first = verdicts[0]
    votes = Votes(
        counts=dict(reduce(add, (Counter(verdict.votes.counts) for verdict in verdicts))),
        unreadable=sum(verdict.votes.unreadable for verdict in verdicts),
        failed=sum(verdict.votes.failed for verdict in verdicts),
    )
    status, reason = Status.OK, None
    if len(scores) < quorum:
        lost = [verdict for verdict in verdicts if verdict.score is None]
        status = Status.FAILED if any(verdict.status is Status.FAILED for verdict in lost) else Status.ABSTAINED
        reason = f"{len(scores)} of {len(verdicts)} judges have a verdict, {quorum} are needed: {lost[0].reason}"
    return Verdict(
        candidate_id=first.candidate_id,
        axis=first.axis,
        status=status,
        score=combine(how, scores) if status is Status.OK else None,
        votes=votes,
        reason=reason,
        rationale=next((v.rationale for v in verdicts if v.rationale), None) if detail else None,
    )


def combine(how: Combine, scores: Sequence[float]) -> float:
    """One score from at least one."""
    match how:
        case "mean":
            return fmean(scores)
        case "majority":
            return fmean(multimode(scores))
        case "minimum":
            return min(scores)


def _silence(request: JudgeRequest, reason: str) -> tuple[Verdict, ...]:
    """What a member says whose engine never answered."""
    return tuple(
        Verdict(candidate_id=c.id, axis=axis, status=Status.FAILED, votes=Votes(failed=1), reason=reason)
        for axis in request.axes
        for c in request.cohort.candidates
    )


def _joint(reports: Sequence[AxisReport]) -> AxisReport:
    """The reports of several judges on one axis: names side by side, costs summed, rates averaged."""
    first = reports[0].provenance

    def names(field: str) -> str:
        return " + ".join(getattr(report.provenance, field) for report in reports)

    def mean(rates: Sequence[float | None]) -> float | None:
        given = [rate for rate in rates if rate is not None]
        return fmean(given) if given else None

    joint = {field: names(field) for field in ("teacher", "revision", "rubric", "rubric_hash")}
    return AxisReport(
        provenance=first.model_copy(update=joint),
        usage=sum((report.usage for report in reports), Usage()),
        position_consistency=mean([report.position_consistency for report in reports]),
        position_bias=mean([report.position_bias for report in reports]),
    )
