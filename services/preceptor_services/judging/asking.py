"""One axis's questions put to the teacher: from the verdict cache where they were answered before, from the engine
otherwise, again where no answer could be read.

In: questions. Out: what was heard, one `Heard` per question, in order; the cost adds up in `usage`.
Guarantees: a call that failed is an error, an answer without a verdict is unreadable, and neither is kept in the
cache; a question is repeated at most `unreadable_retries` times.
Waits for: the cache (briefly) and the engine, at most until the deadline. Raises `EngineError` when a call was lost
with its engine, if that is what is wanted (`whole`); what was answered is in the cache by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from preceptor_client.contract import LISTWISE, Mode, RubricSpec, Sampling, Usage
from preceptor_services.cache import VerdictCache, cache_key
from preceptor_services.engine import Answer, Engine, EngineError, Generation, Served
from preceptor_services.judging.findings import Heard
from preceptor_services.judging.modes import Question
from preceptor_services.metrics import Metrics
from preceptor_services.parsing import OrderReading, Reading, Rung, read, read_order
from preceptor_services.priority import Priority
from preceptor_services.rubrics import Rubric

_WARM = 0.7
"""Least temperature of a repeated question: at 0 the same answer would come back."""


def generation_for(spec: RubricSpec, sampling: Sampling, shown: int = 2) -> Generation:
    """How the answers to a rubric's questions are drawn. `shown` is the number of candidates in a listwise prompt."""
    labels = map(str, range(1, shown + 1)) if spec.mode in LISTWISE else spec.labels
    return Generation(
        endpoint=spec.endpoint,
        max_tokens=spec.max_tokens,
        n=sampling.votes,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        labels=tuple(labels),
        constraint=spec.constraint,
        ranking=spec.mode is Mode.RANKING,
    )


@dataclass
class Asker:
    """Asks by one rubric for one cohort; an instance is used as `modes.Ask`."""

    engine: Engine
    served: Served
    """What the cohort began with; nothing else answers."""
    metrics: Metrics
    rubric: Rubric
    sampling: Sampling
    deadline: float
    """In the event loop's time."""
    affinity: str
    priority: Priority
    max_prompts: int
    unreadable_retries: int
    cache: VerdictCache | None
    whole: bool = False
    usage: Usage = field(default_factory=Usage)
    _read_before: dict[tuple[Answer, int], Heard] = field(default_factory=dict)

    async def __call__(self, questions: Sequence[Question]) -> list[Heard]:
        """What the teacher says to each of `questions`, which show equally many candidates."""
        generation = generation_for(self.rubric.spec, self.sampling, len(questions[0].texts))
        heard = await self._ask_once(questions, generation, self.cache)
        again = replace(generation, temperature=max(_WARM, generation.temperature), seed=None)
        for _ in range(self.unreadable_retries):
            open_ = [place for place, one in enumerate(heard) if one.error is None and not one.readable]
            if not open_:
                break
            self.metrics.count_repeated(self.rubric.spec.axis, len(open_))
            for place, one in zip(
                open_, await self._ask_once([questions[place] for place in open_], again, None), strict=True
            ):
                if one.error is None:
                    heard[place] = one
        readings: list[Reading | OrderReading] = []
        for one in heard:
            readings += [*one.readings, *one.orders]
        self.metrics.count_readings(self.rubric.spec.axis, readings)
        return heard

    async def _ask_once(
        self, questions: Sequence[Question], generation: Generation, cache: VerdictCache | None
    ) -> list[Heard]:
        answers: list[Answer | None] = [None] * len(questions)
        keys: list[str] = []
        if cache is not None:
            by = self.served, self.engine.thinking
            keys = [cache_key(*by, self.rubric.hash, question.prompt, generation) for question in questions]
            answers = await cache.get(keys)
        open_ = [place for place, answer in enumerate(answers) if answer is None]
        self.usage += Usage(cached=len(questions) - len(open_))
        if open_:
            asked, cost = await self.engine.ask(
                [questions[place].prompt for place in open_],
                generation,
                deadline=self.deadline,
                max_prompts=self.max_prompts,
                affinity=self.affinity,
                priority=self.priority,
                served=self.served,
            )
            self.usage += cost
            for place, answer in zip(open_, asked, strict=True):
                answers[place] = answer
        heard = [
            self._read(question, answer or Answer(error="the engine gave no answer"))
            for question, answer in zip(questions, answers, strict=True)
        ]
        if cache is not None:
            kept = {place: answers[place] for place in open_ if heard[place].readable}
            await cache.put({keys[place]: answer for place, answer in kept.items() if answer is not None})
        lost = next((answer.error for answer in answers if answer is not None and answer.lost), None)
        if self.whole and lost is not None:
            raise EngineError("unreachable", lost)
        return heard

    def _read(self, question: Question, answer: Answer) -> Heard:
        if answer.error is not None:
            return Heard(error=answer.error)
        if not answer.bound:
            return self._read_anew(question, answer)
        # An answer that was held to its form is read without a look at the texts, and most are one of a few labels.
        key = answer, len(question.texts)
        if (heard := self._read_before.get(key)) is None:
            heard = self._read_before[key] = self._read_anew(question, answer)
        return heard

    def _read_anew(self, question: Question, answer: Answer) -> Heard:
        spec, shown = self.rubric.spec, question.texts
        cut_off = answer.cut_off or (False,) * len(answer.texts)
        votes = list(zip(answer.texts, cut_off, strict=True))
        if spec.mode is Mode.RANKING:
            return Heard(
                orders=tuple(
                    read_order(spec.parser, text, len(shown), constrained=answer.bound, cut_off=cut, texts=shown)
                    for text, cut in votes
                )
            )
        labels = [str(number + 1) for number in range(len(shown))] if spec.mode is Mode.BEST_OF else list(spec.labels)
        readings = tuple(
            read(spec.parser, text, labels, constrained=answer.bound, cut_off=cut, texts=shown) for text, cut in votes
        )
        if not any(answer.reasoning):
            return Heard(readings)
        return Heard(
            readings=tuple(
                replace(reading, rationale=reading.rationale or (thought if reading.rung is not Rung.ABSTAIN else None))
                for reading, thought in zip(readings, answer.reasoning, strict=True)
            )
        )
