"""Cohorts to the judges and their verdicts back, each once.

    submit -> stream `cohorts` ~~> judges ~~> stream `verdicts:<run>` -> outcomes
       ^                                                                    |
       +------- tend: what Redis lost, again                    forgotten as it is given

In: sampled cohorts. Out: each with the response to it, or with why it has none. Guarantees: a cohort comes out at most
once, whatever is delivered twice, late or for nobody; as long as it is neither answered nor withdrawn, the judges have
it: a Redis that comes back without its last writes is told again. What is given out is forgotten in Redis at once: a
trainer that dies issues its cohorts anew, under another name. Waits for room (`submit`) and for judges (`outcomes`);
rides through a Redis that is away as the queue does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from pydantic import ValidationError

from preceptor_client import tracing
from preceptor_client.contract import Candidate, Cohort, Composition, JudgeRequest, JudgeResponse, JudgeTask
from preceptor_client.queue import CohortQueue, QueueUnavailable
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import JudgeConfig

_TEND_EVERY_S = 5.0
"""No event tells that a Redis came back without its last writes."""
_LEAVE_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Answered:
    """A cohort with its response; without one, `dead` says why it went to the dead letters."""

    cohort: PolicyCohort
    response: JudgeResponse | None
    dead: str | None = None


class Judges:
    """The judges of one run, which Redis knows as `run`. `count` is told `resubmitted` and `unknown`; `composition`
    says by a window's id what counts there, `traceparent` of a cohort where in a trace it belongs, `in_detail` whether
    its reasons and comparisons are wanted.
    """

    def __init__(
        self,
        queue: CohortQueue,
        run: str,
        config: JudgeConfig,
        codec: Codec,
        count: Callable[[str], None],
        composition: Callable[[str], Composition],
        traceparent: Callable[[str], str | None] = lambda id: None,
        in_detail: Callable[[str], bool] = lambda id: False,
    ) -> None:
        self.run = run
        self._queue = queue
        self._config = config
        self._codec = codec
        self._count = count
        self._traceparent = traceparent
        self._composition = composition
        self._in_detail = in_detail
        self._unanswered: dict[str, tuple[PolicyCohort, float]] = {}
        self._submitting: set[str] = set()
        """Of those, what waits for room: Redis need not know of it yet."""
        self._doubt = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """Cohorts at the judges."""
        return len(self._unanswered)

    @property
    def longest_s(self) -> float:
        """How long the first of them has been there."""
        now = time.monotonic()
        return max((now - since for _, since in self._unanswered.values()), default=0.0)

    def doubt(self) -> None:
        """Redis was away: see at once whether it still has everything."""
        self._doubt.set()

    async def submit(self, cohorts: Sequence[PolicyCohort]) -> list[PolicyCohort]:
        """Those that no judge gets: there is nothing to compare, or a text is over the contract's limits.

        What is malformed is left out of what a judge is asked.
        """
        tasks = [(cohort, self._task(cohort)) for cohort in cohorts]
        now = time.monotonic()
        self._unanswered |= {cohort.id: (cohort, now) for cohort, task in tasks if task}
        self._submitting = {cohort.id for cohort, task in tasks if task}
        await self._queue.submit_many([task for _, task in tasks if task])
        self._submitting = set()
        return [cohort for cohort, task in tasks if not task]

    async def outcomes(self) -> AsyncGenerator[Answered, None]:
        """Every answer as it comes. Never ends."""
        async with aclosing(self._queue.outcome_pages(self.run)) as pages:
            async for page in pages:
                for outcome in page:
                    cohort, _ = self._unanswered.pop(outcome.cohort_id, (None, 0.0))
                    if cohort is None:
                        self._count("unknown")
                    else:
                        tracing.record("verdict wait", parent=outcome.trace, since_s=outcome.answered_at_s)
                        yield Answered(cohort, outcome.response, outcome.dead)
                await self._queue.forget(self.run, page)

    async def tend(self) -> None:
        """Submit again what Redis knows nothing of any more. Never ends."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), _TEND_EVERY_S)
            self._doubt.clear()
            submitted = [id for id in self._unanswered if id not in self._submitting]
            missing = await self._queue.missing(self.run, submitted)
            again = [self._unanswered[id][0] for id in missing if id in self._unanswered]
            for _ in again:
                self._count("resubmitted")
            await self._queue.submit_many([task for cohort in again if (task := self._task(cohort))])

    async def withdraw(self, ids: Collection[str]) -> None:
        """These need no verdict any more."""
        submitted = [id for id in ids if self._unanswered.pop(id, None)]
        if submitted:
            await self._queue.withdraw(self.run, submitted)

    async def leave(self) -> None:
        """Nothing needs a verdict any more. A Redis that is away now keeps what it has until the run is resumed."""
        with suppress(TimeoutError, QueueUnavailable):
            await asyncio.wait_for(self._queue.withdraw(self.run), _LEAVE_PATIENCE_S)

    def _task(self, cohort: PolicyCohort) -> JudgeTask | None:
        asked = [candidate for candidate in cohort.candidates if not candidate.malformed]
        if len(cohort.candidates) < 2 or not asked:
            return None
        config, composition = self._config, self._composition(cohort.window.id)
        try:
            request = JudgeRequest(
                cohort=Cohort(
                    id=cohort.id,
                    prefix=self._codec.decode(cohort.window.prefix),
                    candidates=tuple(Candidate(id=c.id, origin=c.origin, text=c.text) for c in asked),
                    reference=self._codec.decode(cohort.window.suffix),
                ),
                axes=composition.axes,
                rubrics={axis: rubric for axis, rubric in config.rubrics.items() if axis in composition.axes},
                schedule=config.schedule,
                order=config.order,
                composition=composition,
                sampling=config.sampling,
                deadline_s=config.deadline_s,
                detail=self._in_detail(cohort.id),
            )
        except ValidationError:
            return None
        return JudgeTask(run=self.run, request=request, trace=self._traceparent(cohort.id))
