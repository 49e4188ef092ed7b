"""Judging one cohort: the same code behind `POST /v1/judge` and the queue worker.

    cohort -> neutralised texts -> questions per axis -> engine -> labels -> verdicts

In: a `JudgeRequest`. Out: a `JudgeResponse` with a verdict for every candidate on every axis asked for, whatever
happens: a call that failed, an answer that cannot be read and a deadline that passed become a status, never a score.
Axes are asked side by side; candidates with the same text are asked about once. Raises `UnjudgeableError` for a
request that no teacher could answer, and `EngineError` when the engine has never been ready. Waits for the engine, at
most until the cohort's deadline.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from preceptor_client.contract import (
    AxisReport,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Provenance,
    Sampling,
    Status,
    Verdict,
    Votes,
)
from preceptor_services.engine import Answer, Engine, Generation, Prompt
from preceptor_services.fencing import Neutraliser, fence_for
from preceptor_services.metrics import Metrics
from preceptor_services.parsing import parse
from preceptor_services.rubrics import Rubric, RubricFile, RubricSet
from preceptor_services.schedules import (
    Outcome,
    Standing,
    Unanswered,
    all_pairs,
    distinct,
    position_consistency,
    tally,
)
from preceptor_services.settings import JudgingSettings


class UnjudgeableError(ValueError):
    """The request cannot be judged as it is; the text says what to change."""


class Judge:
    """Judges cohorts with one teacher by one rubric set."""

    def __init__(self, engine: Engine, rubrics: RubricSet, settings: JudgingSettings, metrics: Metrics) -> None:
        self._engine = engine
        self._rubrics = rubrics
        self._settings = settings
        self._metrics = metrics

    @property
    def probes(self) -> list[Generation]:
        """Every kind of request this judge makes, for `Engine.watch`."""
        return [generation_for(rubric.spec, Sampling()) for rubric in self._rubrics.axes.values()]

    def check(self, request: JudgeRequest) -> None:
        """Raises UnjudgeableError if the rubric set cannot judge what is asked."""
        for axis in request.axes:
            rubric = self._rubrics.axes.get(axis)
            if rubric is None:
                known = ", ".join(self._rubrics.axes)
                raise UnjudgeableError(
                    f"axes: no rubric for {axis!r} in the set {self._rubrics.name!r}, which has {known}"
                )
            if rubric.spec.reference == "required" and request.cohort.reference is None:
                raise UnjudgeableError(
                    f"cohort.reference: the axis {axis!r} of the set {self._rubrics.name!r} needs one to compare with: "
                    "give the original suffix, or leave the axis out"
                )

    async def judge(self, request: JudgeRequest) -> JudgeResponse:
        """The verdicts on `request.cohort`, candidate by candidate, axis by axis."""
        self.check(request)
        teacher = self._engine.teacher
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + min(request.deadline_s or self._settings.deadline_s, self._settings.deadline_s)
        sampling = request.sampling or self._settings.sampling
        texts = _Texts.of(request.cohort, self._rubrics.neutraliser)
        rubrics = [self._rubrics.axes[axis] for axis in request.axes]
        asked = await asyncio.gather(
            *(
                self._engine.ask(
                    questions(rubric, texts),
                    generation_for(rubric.spec, sampling),
                    deadline=deadline,
                    max_prompts=self._settings.max_prompts_per_call,
                )
                for rubric in rubrics
            )
        )
        verdicts: list[Verdict] = []
        reports: dict[str, AxisReport] = {}
        for rubric, (answers, usage) in zip(rubrics, asked, strict=True):
            judgement = judgement_of(rubric.spec, texts, answers)
            verdicts += [
                verdict_of(candidate.id, rubric.spec.axis, finding)
                for candidate, finding in zip(request.cohort.candidates, judgement.findings, strict=True)
            ]
            reports[rubric.spec.axis] = AxisReport(
                provenance=Provenance(
                    teacher=teacher.name,
                    revision=teacher.revision,
                    rubric=rubric.name,
                    rubric_hash=rubric.hash,
                    sampling=sampling,
                ),
                usage=usage,
                position_consistency=judgement.position_consistency,
            )
        response = JudgeResponse(
            cohort_id=request.cohort.id, verdicts=tuple(verdicts), axes=reports, elapsed_s=clock() - started
        )
        self._metrics.count_judged(response)
        return response


@dataclass(frozen=True)
class _Texts:
    """A cohort's texts as prompts show them. `places[k]` says which of the `distinct` texts candidate k has."""

    prefix: str
    distinct: list[str]
    places: list[int]
    reference: str | None
    fence: str

    @classmethod
    def of(cls, cohort: Cohort, neutraliser: Neutraliser) -> _Texts:
        prefix = neutraliser.clean(cohort.prefix)
        texts, places = distinct([neutraliser.clean(candidate.text) for candidate in cohort.candidates])
        reference = None if cohort.reference is None else neutraliser.clean(cohort.reference)
        return cls(prefix, texts, places, reference, fence_for([prefix, reference or "", *texts]))


@dataclass(frozen=True)
class Finding:
    """What the answers say of one candidate on one axis; `error` is one call's, of those that failed."""

    score: float | None
    votes: Votes
    error: str | None


@dataclass(frozen=True)
class Judgement:
    """One axis of one cohort: a finding per candidate, in the cohort's order."""

    findings: list[Finding]
    position_consistency: float | None = None


def generation_for(spec: RubricFile, sampling: Sampling) -> Generation:
    """How the answers to a rubric's questions are drawn."""
    return Generation(
        endpoint=spec.endpoint,
        max_tokens=spec.max_tokens,
        n=sampling.votes,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        labels=tuple(spec.labels),
        constraint=spec.constraint,
    )


def questions(rubric: Rubric, texts: _Texts) -> list[Prompt]:
    """The prompts of one axis: one per comparison of `all_pairs`, or one per distinct text."""
    shared = {"prefix": texts.prefix, "reference": texts.reference, "fence": texts.fence}
    if rubric.spec.mode == "pointwise":
        return [rubric.render(**shared, candidate=text) for text in texts.distinct]
    return [
        rubric.render(**shared, a=texts.distinct[first], b=texts.distinct[second])
        for first, second in all_pairs(len(texts.distinct))
    ]


def judgement_of(spec: RubricFile, texts: _Texts, answers: Sequence[Answer]) -> Judgement:
    """What the answers to `questions` say of every candidate."""
    if spec.mode == "pointwise":
        findings = [_pointwise(spec, answer) for answer in answers]
        return Judgement([findings[place] for place in texts.places])
    comparisons = all_pairs(len(texts.distinct))
    outcomes = {pair: outcome_of(spec, answer) for pair, answer in zip(comparisons, answers, strict=True)}
    error = next((answer.error for answer in answers if answer.error is not None), None)
    standings = tally(texts.places, outcomes)
    return Judgement([_pairwise(standing, error) for standing in standings], position_consistency(outcomes))


def outcome_of(spec: RubricFile, answer: Answer) -> Outcome:
    """A comparison's outcome for the text shown first: what most readable votes say, a tie if they are split."""
    if answer.error is not None:
        return Unanswered.FAILED
    labels = [parse(spec.parser, text, spec.labels) for text in answer.texts]
    ranked = Counter(spec.labels[label] for label in labels if label is not None).most_common(2)
    if not ranked:
        return Unanswered.UNREADABLE
    return 0.5 if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _pairwise(standing: Standing, error: str | None) -> Finding:
    counts = {"won": standing.won, "lost": standing.lost, "tied": standing.tied}
    votes = Votes(counts=counts, unreadable=standing.unreadable, failed=standing.failed)
    return Finding(standing.score, votes, error)


def _pointwise(spec: RubricFile, answer: Answer) -> Finding:
    if answer.error is not None:
        return Finding(None, Votes(failed=1), answer.error)
    labels = [parse(spec.parser, text, spec.labels) for text in answer.texts]
    counts = Counter(label for label in labels if label is not None)
    score = sum(spec.labels[label] * votes for label, votes in counts.items()) / counts.total() if counts else None
    return Finding(score, Votes(counts=dict(counts), unreadable=labels.count(None)), None)


def verdict_of(candidate_id: str, axis: str, finding: Finding) -> Verdict:
    """The finding as a typed verdict: without a score, `failed` if any call failed, since asking again may help."""
    if finding.score is not None:
        status, reason = Status.OK, None
    elif finding.votes.failed:
        status, reason = Status.FAILED, finding.error
    else:
        status, reason = Status.ABSTAINED, "no answer names a verdict"
    return Verdict(
        candidate_id=candidate_id, axis=axis, status=status, score=finding.score, votes=finding.votes, reason=reason
    )
