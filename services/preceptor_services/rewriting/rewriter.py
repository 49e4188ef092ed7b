"""Rewriting one suffix: copied if it is good, repaired if it is not.

    prefix + suffix -> neutralised -> prompt -> engine -> samples, checked -> best by the judge -> rewritten | unchanged

In: a `RewriteRequest`. Out: a `RewriteResponse`; text only when the teacher gave a rewrite that passed every check: a
refusal, talk about the task, a text that strays and a call that failed become an outcome, never a training text.
Samples with the same text are judged once; of several that differ the judge's best is the answer, and without a
judgement the first one that was drawn. Raises `EngineError` when the engine has never been ready. Waits for the
engine and the judge, at most until the request's deadline; concurrent requests share engine calls.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from preceptor_client.contract import (
    Candidate,
    Cohort,
    Composition,
    JudgeRequest,
    Origin,
    Provenance,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Sampling,
    Usage,
)
from preceptor_client.rubrics import RubricError
from preceptor_services.batching import Batcher
from preceptor_services.engine import Engine, EngineError, Generation
from preceptor_services.fencing import fence_for
from preceptor_services.judging import Judge, Panel, UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority
from preceptor_services.rewriting.objections import Objection
from preceptor_services.rewriting.samples import Passage, Sample, read_sample
from preceptor_services.rubrics import RubricBook
from preceptor_services.settings import RewritingSettings


@dataclass(frozen=True)
class _Choice:
    """The sample that is the answer, how the judge scored it, and why it did not."""

    sample: Sample
    score: float | None = None
    usage: Usage = field(default_factory=Usage)
    reason: str | None = None


class Rewriter:
    """Rewrites suffixes with one teacher; `judge` chooses where several rewrites are drawn.

    Raises RubricError if no rubric set has a `rewrite.yaml`, or if several rewrites are to be drawn and the judge
    cannot judge `rewriting.axes`.
    """

    def __init__(
        self,
        engine: Engine,
        rubrics: RubricBook,
        settings: RewritingSettings,
        metrics: Metrics,
        judge: Judge | Panel | None = None,
    ) -> None:
        if rubrics.rewrite is None:
            raise RubricError("rubrics: none of them has a rewrite.yaml, so this service cannot rewrite")
        self._engine = engine
        self._rubric = rubrics.rewrite
        self._neutraliser = rubrics.neutraliser
        self._settings = settings
        self._metrics = metrics
        self._judge = judge
        self._batcher = Batcher(engine, max_prompts=settings.max_prompts_per_call)
        if judge is not None and settings.samples > 1:
            try:
                judge.check(self._question(RewriteRequest(prefix="", suffix="s"), ["s"], 1.0))
            except UnjudgeableError as error:
                raise RubricError(f"rewriting.axes: {error}") from None

    @property
    def probes(self) -> list[Generation]:
        """Every kind of request this rewriter makes, for `Engine.watch`."""
        return [self._generation(None, self._sampling(1))]

    def _generation(self, max_tokens: int | None, sampling: Sampling) -> Generation:
        return Generation(
            endpoint=self._rubric.spec.endpoint,
            max_tokens=max_tokens or self._rubric.spec.max_tokens,
            n=sampling.votes,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )

    def _sampling(self, samples: int) -> Sampling:
        settings = self._settings
        temperature = settings.temperature if samples == 1 else settings.best_of_temperature
        return Sampling(votes=samples, temperature=temperature, top_p=settings.top_p, seed=settings.seed)

    async def rewrite(self, request: RewriteRequest, *, priority: Priority = Priority.INTERACTIVE) -> RewriteResponse:
        """The teacher's version of `request.suffix`."""
        served = self._engine.served
        deadline = asyncio.get_running_loop().time() + min(
            request.deadline_s or self._settings.deadline_s, self._settings.deadline_s
        )
        passage = self._passage(request)
        sampling = self._sampling(request.samples or self._settings.samples)
        answer, usage = await self._batcher.ask(
            self._rubric.render(
                prefix=passage.shown_prefix, suffix=passage.shown_suffix, fence=passage.fence, join=passage.join
            ),
            self._generation(request.max_tokens, sampling),
            deadline=deadline,
            priority=priority,
            served=served,
        )
        read = [read_sample(text, passage, self._neutraliser, self._settings) for text in answer.texts]
        self._metrics.count_samples([one.fault if isinstance(one, Objection) else "usable" for one in read])
        usable = _distinct(one for one in read if isinstance(one, Sample))
        provenance = Provenance(
            teacher=served.teacher.name,
            revision=served.teacher.revision,
            rubric=self._rubric.name,
            rubric_hash=self._rubric.hash,
            sampling=sampling,
        )
        if usable:
            choice = await self._choose(request, usable, deadline, priority)
            response = RewriteResponse(
                outcome=RewriteOutcome.UNCHANGED if choice.sample.unchanged else RewriteOutcome.REWRITTEN,
                rewrite=choice.sample.text,
                provenance=provenance,
                usage=usage + choice.usage,
                checks=choice.sample.checks,
                score=choice.score,
                usable=len(usable),
                reason=choice.reason,
            )
        else:
            objections = [one.detail for one in read if isinstance(one, Objection)]
            response = RewriteResponse(
                outcome=RewriteOutcome.REFUSED if answer.error is None else RewriteOutcome.FAILED,
                rewrite=None,
                provenance=provenance,
                usage=usage,
                reason=answer.error or "; ".join(dict.fromkeys(objections)),
            )
        self._metrics.count_rewritten(response)
        return response

    def _passage(self, request: RewriteRequest) -> Passage:
        prefix, suffix = self._neutraliser.clean(request.prefix), self._neutraliser.clean(request.suffix)
        join_words = self._rubric.spec.join_words
        return Passage(
            prefix=request.prefix,
            suffix=request.suffix,
            shown_prefix=prefix,
            shown_suffix=suffix,
            join=" ".join(prefix.split()[-join_words:]) if join_words else "",
            fence=fence_for([prefix, suffix]),
        )

    async def _choose(
        self, request: RewriteRequest, usable: Sequence[Sample], deadline: float, priority: Priority
    ) -> _Choice:
        """The sample that the judge likes best; of equals, and without a judgement, the first."""
        first = usable[0]
        left_s = deadline - asyncio.get_running_loop().time()
        if len(usable) == 1:
            return _Choice(first)
        if self._judge is None:
            return _Choice(first, reason="not judged: this service has no judge")
        if left_s <= 0:
            return _Choice(first, reason="not judged: the deadline passed before the judge was asked")
        question = self._question(request, [sample.text for sample in usable], left_s)
        try:
            response = await self._judge.judge(question, priority=priority)
        except (EngineError, UnjudgeableError) as error:
            return _Choice(first, reason=f"not judged: {error}")
        scored = [(one.score, sample) for one, sample in zip(response.composites, usable, strict=True)]
        judged = [(score, sample) for score, sample in scored if score is not None]
        if not judged:
            reason = next((v.reason for v in response.verdicts if v.reason), response.composites[0].reason)
            return _Choice(first, usage=response.usage, reason=f"not judged: {reason}")
        score, best = max(judged, key=lambda one: one[0])
        return _Choice(best, score, response.usage)

    def _question(self, request: RewriteRequest, texts: Sequence[str], left_s: float) -> JudgeRequest:
        """Which of `texts` continues the prefix best, as a cohort. The suffix is the reference, where one is used."""
        digest = hashlib.sha256("\0".join((request.prefix, request.suffix)).encode("utf-8", "surrogatepass"))
        return JudgeRequest(
            cohort=Cohort(
                id=f"rewrite-{digest.hexdigest()[:16]}",
                prefix=request.prefix,
                candidates=tuple(
                    Candidate(
                        id=f"sample-{index}",
                        origin=Origin.ORIGINAL if text == request.suffix else Origin.REWRITE,
                        text=text,
                    )
                    for index, text in enumerate(texts)
                ),
                reference=request.suffix,
            ),
            axes=self._settings.axes,
            composition=Composition(weights=dict.fromkeys(self._settings.axes, 1.0)),
            deadline_s=left_s,
        )


def _distinct(samples: Iterable[Sample]) -> list[Sample]:
    """One sample of each text, in the order in which they were drawn."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(" ".join(sample.text.split()), sample)
    return list(found.values())
