"""Rewriting one suffix: copied if it is good, repaired if it is not.

    prefix + suffix -> neutralised -> prompt -> engine -> refusal? -> join taken off -> rewritten | unchanged

In: a `RewriteRequest`. Out: a `RewriteResponse`; text only when the teacher gave a rewrite: a refusal, talk about the
task and a call that failed become an outcome, never a training text. Raises `EngineError` when the engine has never
been ready. Waits for the engine, at most until the request's deadline; concurrent requests share engine calls.
"""

from __future__ import annotations

import asyncio
import re

from preceptor_client.contract import (
    Provenance,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Sampling,
)
from preceptor_services.batching import Batcher
from preceptor_services.engine import Engine, Generation
from preceptor_services.fencing import fence_for
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import RubricError, RubricSet
from preceptor_services.settings import RewritingSettings

_REFUSALS = re.compile(
    r"""(?: i['’]m\ (?:very\ )?sorry | i\ am\ sorry | sorry | i\ apologi[sz]e | unfortunately )
            \W{1,3} (?:but\ )? (?: i | this | as\ an ) \b
      | i\ (?: can(?:no|['’])t | can\ not | won['’]t | will\ not | am\ (?:not\ able|unable) | must\ decline | decline )
            \s (?:\w+\ ){0,3} (?: help | assist | rewrite | continue | comply | provide | create | generate | write
            | fulfil | engage | produce | repair | copy | do\ that )
      | as\ an?\ (?: ai | artificial\ intelligence | language\ model ) \b""",
    re.IGNORECASE | re.VERBOSE,
)
_TALK = re.compile(
    r"""(?: sure | certainly | of\ course | absolutely | okay | ok ) [,.!:] \s+ (?: here | i\b | let\ me | below )
      | (?: here(?:['’]s|\ is|\ are) | below\ is | this\ is ) \s (?:\w+\ ){0,3}
            (?: rewrit | rewrote | revis | correct | repair | improv | edit | copied | continuation\b | suffix\b )
      | \W* (?:the\ )? (?: rewritten | revised | corrected | repaired | edited | copied ) \s
            (?: continuation | suffix | text | version ) \b
      | the\ (?:given\ |original\ )? (?: continuation | suffix ) \s (?: is | was | has | does | needs | contains ) \b
      | \W* (?: rewrite | continuation | suffix | output | answer ) \s* :""",
    re.IGNORECASE | re.VERBOSE,
)


class Rewriter:
    """Rewrites suffixes with one teacher by one rubric set. Raises RubricError if the set has no `rewrite.yaml`."""

    def __init__(self, engine: Engine, rubrics: RubricSet, settings: RewritingSettings, metrics: Metrics) -> None:
        if rubrics.rewrite is None:
            raise RubricError(f"rubrics: the set {rubrics.name!r} has no rewrite.yaml, so it cannot rewrite")
        self._engine = engine
        self._rubric = rubrics.rewrite
        self._neutraliser = rubrics.neutraliser
        self._settings = settings
        self._metrics = metrics
        self._batcher = Batcher(engine, max_prompts=settings.max_prompts_per_call)

    @property
    def probes(self) -> list[Generation]:
        """Every kind of request this rewriter makes, for `Engine.watch`."""
        return [self._generation(None)]

    def _generation(self, max_tokens: int | None) -> Generation:
        return Generation(
            endpoint=self._rubric.spec.endpoint,
            max_tokens=max_tokens or self._rubric.spec.max_tokens,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            seed=self._settings.seed,
        )

    async def rewrite(self, request: RewriteRequest) -> RewriteResponse:
        """The teacher's version of `request.suffix`."""
        teacher = self._engine.teacher
        deadline = asyncio.get_running_loop().time() + min(
            request.deadline_s or self._settings.deadline_s, self._settings.deadline_s
        )
        prefix, suffix = self._neutraliser.clean(request.prefix), self._neutraliser.clean(request.suffix)
        join = " ".join(prefix.split()[-self._rubric.spec.join_words :]) if self._rubric.spec.join_words else ""
        fence = fence_for([prefix, suffix])
        prompt = self._rubric.render(prefix=prefix, suffix=suffix, fence=fence, join=join)
        answer, usage = await self._batcher.ask(prompt, self._generation(request.max_tokens), deadline=deadline)

        text: str | None = None
        reason: str | None = None
        if answer.error is not None:
            outcome, reason = RewriteOutcome.FAILED, answer.error
        elif reason := objection(answer.texts[0], suffix, fence):
            outcome = RewriteOutcome.REFUSED
        else:
            rewritten = without_join(answer.texts[0], join)
            if same_text(rewritten, suffix):
                outcome, text = RewriteOutcome.UNCHANGED, request.suffix
            else:
                outcome = RewriteOutcome.REWRITTEN
                text = with_margins_of(request.suffix, self._neutraliser.restore(rewritten, request.suffix))
        response = RewriteResponse(
            outcome=outcome,
            rewrite=text,
            provenance=Provenance(
                teacher=teacher.name,
                revision=teacher.revision,
                rubric=self._rubric.name,
                rubric_hash=self._rubric.hash,
                sampling=Sampling(
                    temperature=self._settings.temperature, top_p=self._settings.top_p, seed=self._settings.seed
                ),
            ),
            usage=usage,
            reason=reason,
        )
        self._metrics.count_rewritten(response)
        return response


def objection(answer: str, suffix: str, fence: str) -> str | None:
    """Why `answer` is no rewrite of `suffix` but a refusal or talk about the task; None if it may be one."""
    opening = answer.strip()
    if not opening:
        return "the teacher answered with nothing"
    if fence in opening:
        return "the teacher repeated the prompt's marker lines"
    for pattern, reason in ((_REFUSALS, "the teacher declined"), (_TALK, "the teacher talked about the task")):
        if pattern.match(opening) and not pattern.match(suffix.strip()):
            return f"{reason}: {opening[:80]!r}"
    return None


def without_join(answer: str, join: str) -> str:
    """`answer` without the words at its start that repeat the end of `join`."""
    words, given = answer.split(), join.split()
    for count in range(min(len(given), len(words)), 0, -1):
        if [w.casefold() for w in words[:count]] == [w.casefold() for w in given[-count:]]:
            return re.sub(rf"\s*(?:\S+\s*){{{count}}}", "", answer, count=1)
    return answer


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same words and signs; whitespace does not count."""
    return one.split() == other.split()


def with_margins_of(original: str, text: str) -> str:
    """`text` with the whitespace before and after that `original` has, so that it joins its prefix the same way."""
    body = original.strip()
    before, _, after = original.partition(body) if body else ("", "", "")
    return before + text.strip() + after
