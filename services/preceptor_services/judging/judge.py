"""Judging one cohort: the same code behind `POST /v1/judge`, batches and the queue worker.

    cohort -> neutralised texts -> questions per axis -> cache | engine -> readings -> verdicts -> composites

In: a `JudgeRequest`. Out: a `JudgeResponse` with a verdict for every candidate on every axis asked for, whatever
happens: a call that failed, an answer that cannot be read and a deadline that passed become a status, never a score.
Axes are asked side by side; candidates with the same text are asked about once. Raises `UnjudgeableError` for a
request that no teacher could answer, and `EngineError` when the engine has never been ready, or, for who can ask again
later (`whole`), as soon as it is lost with an open call. Waits for the engine, at most until the cohort's deadline.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from preceptor_client.contract import (
    AxisReport,
    Composite,
    JudgeRequest,
    JudgeResponse,
    Mode,
    Provenance,
    RubricSpec,
    Sampling,
    Verdict,
)
from preceptor_client.rubrics import RubricError
from preceptor_services.cache import VerdictCache
from preceptor_services.composition import compose
from preceptor_services.engine import Engine, Generation
from preceptor_services.judging.asking import Asker, generation_for
from preceptor_services.judging.findings import verdict_of
from preceptor_services.judging.modes import Pairing, judge_axis
from preceptor_services.judging.texts import Texts
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority
from preceptor_services.rubrics import Rubric, RubricBook
from preceptor_services.settings import JudgingSettings
from preceptor_services.templates import PromptError
from preceptor_services.traces import judging


class UnjudgeableError(ValueError):
    """The request cannot be judged as it is; the text says what to change."""


class Judge:
    """Judges cohorts with one teacher by one book of rubrics."""

    def __init__(
        self,
        engine: Engine,
        rubrics: RubricBook,
        settings: JudgingSettings,
        metrics: Metrics,
        cache: VerdictCache | None = None,
    ) -> None:
        self._engine = engine
        self._rubrics = rubrics
        self._settings = settings
        self._metrics = metrics
        self._cache = cache

    @property
    def probes(self) -> list[Generation]:
        """Every kind of request this judge makes, for `Engine.watch`."""
        return [generation_for(rubric.spec, Sampling()) for rubric in self._rubrics.rubrics.values()]

    def check(self, request: JudgeRequest) -> list[Rubric]:
        """The rubric of every axis. Raises UnjudgeableError if what is asked cannot be judged."""
        rubrics = []
        for axis in request.axes:
            wanted = request.rubrics.get(axis)
            if isinstance(wanted, RubricSpec) and not self._settings.request_rubrics:
                raise UnjudgeableError(f"rubrics: this service takes no rubrics from requests (for {axis!r}): name one")
            try:
                rubric = self._rubrics.choose(axis, wanted)
            except RubricError as error:
                raise UnjudgeableError(str(error)) from None
            if rubric.spec.reference == "required" and request.cohort.reference is None:
                raise UnjudgeableError(
                    f"cohort.reference: the rubric {rubric.name!r} needs one to compare with: "
                    f"give the original suffix, or leave the axis {axis!r} out"
                )
            rubrics.append(rubric)
        return rubrics

    async def judge(
        self, request: JudgeRequest, *, priority: Priority = Priority.INTERACTIVE, whole: bool = False
    ) -> JudgeResponse:
        """The verdicts on `request.cohort`, axis by axis, candidate by candidate. With `whole`, none that is `failed`
        because the engine was lost."""
        rubrics = self.check(request)
        with judging(request, self._settings) as judged:
            try:
                return judged(await self._judge(request, rubrics, priority, whole))
            except PromptError as error:
                raise UnjudgeableError(f"rubrics: no prompt can be made of these texts: {error}") from None

    async def _judge(
        self, request: JudgeRequest, rubrics: Sequence[Rubric], priority: Priority, whole: bool
    ) -> JudgeResponse:
        served = self._engine.served
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + min(request.deadline_s or self._settings.deadline_s, self._settings.deadline_s)
        sampling = request.sampling or self._settings.sampling
        schedule, order = request.schedule or self._settings.schedule, request.order or self._settings.order
        texts = Texts.of(request.cohort, self._rubrics.neutraliser)
        cache = self._cache if request.cache == "use" else None
        askers = [
            Asker(
                engine=self._engine,
                served=served,
                metrics=self._metrics,
                rubric=rubric,
                sampling=sampling,
                deadline=deadline,
                affinity=request.cohort.id,
                priority=priority,
                max_prompts=self._settings.max_prompts_per_call,
                unreadable_retries=self._settings.unreadable_retries,
                cache=cache,
                whole=whole,
            )
            for rubric in rubrics
        ]
        judging = [
            asyncio.create_task(
                judge_axis(
                    asker.rubric,
                    texts,
                    Pairing(schedule, order, _seed(request, asker.rubric), request.budget),
                    asker,
                )
            )
            for asker in askers
        ]
        try:
            judgements = await asyncio.gather(*judging)
        finally:
            for task in judging:
                task.cancel()  # of the others, when one raised
        verdicts: list[Verdict] = []
        reports: dict[str, AxisReport] = {}
        for asker, judgement in zip(askers, judgements, strict=True):
            rubric = asker.rubric
            verdicts += [
                verdict_of(candidate.id, rubric.spec.axis, judgement.findings[place], detail=request.detail)
                for candidate, place in zip(request.cohort.candidates, texts.places, strict=True)
            ]
            pairwise = rubric.spec.mode is Mode.PAIRWISE
            reports[rubric.spec.axis] = AxisReport(
                provenance=Provenance(
                    teacher=served.teacher.name,
                    revision=served.teacher.revision,
                    rubric=rubric.name,
                    rubric_hash=rubric.hash,
                    sampling=sampling,
                    schedule=schedule if pairwise else None,
                    order=order if rubric.spec.mode is not Mode.POINTWISE else None,
                ),
                usage=asker.usage,
                position_consistency=judgement.position_consistency,
                position_bias=judgement.position_bias,
                comparisons=tuple(judgement.comparisons()) if request.detail else (),
            )
        response = JudgeResponse(
            cohort_id=request.cohort.id,
            verdicts=tuple(verdicts),
            axes=reports,
            composites=composites_of(request, verdicts),
            elapsed_s=clock() - started,
        )
        self._metrics.count_judged(response)
        return response


def composites_of(request: JudgeRequest, verdicts: list[Verdict]) -> tuple[Composite, ...]:
    """The composite scores that `request` asks for."""
    if request.composition is None:
        return ()
    scores = {(v.candidate_id, v.axis): v.score for v in verdicts if v.score is not None}
    return compose(request.composition, request.cohort, scores)


def _seed(request: JudgeRequest, rubric: Rubric) -> int:
    """What lots are drawn by: a cohort that comes again is asked about in the same way."""
    digest = hashlib.sha256(f"{request.cohort.id}\0{rubric.spec.axis}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
