"""The fake's teacher: verdicts and rewrites as two functions say.

In: requests. Out: responses that follow the contract. A request whose deadline is shorter than `judging_s` fails.
"""

from __future__ import annotations

from collections.abc import Callable

from preceptor_client.contract import (
    AxisReport,
    JudgeRequest,
    JudgeResponse,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    RubricSpec,
    Sampling,
    Status,
    Usage,
    Verdict,
    Votes,
)
from preceptor_client.testing.answers import ProblemError, composite, provenance

Score = Callable[[str, str, str], float | Status]
"""`score(axis, prefix, text)`: the score of a candidate, or `Status.ABSTAINED` or `Status.FAILED` for none."""
Rewrite = Callable[[str, str], str | RewriteOutcome]
"""`rewrite(prefix, suffix)`: the rewrite, or `RewriteOutcome.REFUSED` or `RewriteOutcome.FAILED` for none."""

_NONE = {Status.ABSTAINED: "no answer names a verdict", Status.FAILED: "the teacher did not answer"}


class FakeTeacher:
    """Judges and rewrites, and keeps what it was asked."""

    def __init__(self, score: Score, rewrite: Rewrite, axes: tuple[str, ...], judging_s: float) -> None:
        self.judged: list[JudgeRequest] = []
        self.rewritten: list[RewriteRequest] = []
        self._score = score
        self._rewrite = rewrite
        self._axes = axes
        self._judging_s = judging_s

    def judge(self, request: JudgeRequest) -> JudgeResponse:
        """The verdicts that the score function says. Raises ProblemError for an axis that is not known."""
        known = {*self._axes, *(axis for axis, rubric in request.rubrics.items() if isinstance(rubric, RubricSpec))}
        for axis in request.axes:
            if axis not in known:
                raise ProblemError(422, f"axes: no rubric for {axis!r}: this service has {', '.join(self._axes)}")
        self.judged.append(request)
        verdicts = {
            (axis, candidate.id): self._verdict(request, axis, candidate.id, candidate.text)
            for axis in request.axes
            for candidate in request.cohort.candidates
        }
        composites = []
        if request.composition is not None:
            for candidate in request.cohort.candidates:
                found = {axis: verdicts[axis, candidate.id].score for axis in request.axes}
                composites.append(composite(request.composition, candidate.id, found))
        return JudgeResponse(
            cohort_id=request.cohort.id,
            verdicts=tuple(verdicts.values()),
            axes={axis: self._report(request, axis) for axis in request.axes},
            composites=tuple(composites),
            elapsed_s=self._judging_s,
        )

    def _verdict(self, request: JudgeRequest, axis: str, candidate_id: str, text: str) -> Verdict:
        found: float | Status = self._score(axis, request.cohort.prefix, text)
        reason = None
        if request.deadline_s is not None and request.deadline_s < self._judging_s:
            found, reason = Status.FAILED, "the deadline passed before the teacher answered"
        if isinstance(found, Status):
            return Verdict(candidate_id=candidate_id, axis=axis, status=found, reason=reason or _NONE[found])
        return Verdict(
            candidate_id=candidate_id, axis=axis, status=Status.OK, score=found, votes=Votes(counts={"fake": 1})
        )

    def _report(self, request: JudgeRequest, axis: str) -> AxisReport:
        rubric = request.rubrics.get(axis)
        name = rubric if isinstance(rubric, str) else f"fake/{axis}"
        return AxisReport(
            provenance=provenance(name, request.sampling or Sampling()),
            usage=Usage(calls=len(request.cohort.candidates)),
        )

    def repair(self, request: RewriteRequest) -> RewriteResponse:
        """What the rewrite function says."""
        self.rewritten.append(request)
        found = self._rewrite(request.prefix, request.suffix)
        if request.deadline_s is not None and request.deadline_s < self._judging_s:
            found = RewriteOutcome.FAILED
        text, reason = None, None
        if isinstance(found, RewriteOutcome):
            outcome, reason = found, f"the teacher {found}"
        else:
            outcome = RewriteOutcome.UNCHANGED if found == request.suffix else RewriteOutcome.REWRITTEN
            text = found
        return RewriteResponse(
            outcome=outcome,
            rewrite=text,
            provenance=provenance("fake/rewrite", Sampling()),
            usage=Usage(calls=1),
            reason=reason,
        )
