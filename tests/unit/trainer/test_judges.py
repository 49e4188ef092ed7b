"""What the judges are asked, and when Redis is told again; whole runs are in integration/test_train_loop.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from preceptor_client.contract import Composition, Origin
from preceptor_client.queue import CohortQueue
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import JudgeConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.judges import Judges
from queued import COHORTS
from tiny_policy import word_tokenizer


def cohort(number: int) -> PolicyCohort:
    original = TokenCandidate("original", Origin.ORIGINAL, (4, 5), "w4 w5")
    rollout = TokenCandidate("rollout-0", Origin.ROLLOUT, (6, 7), "w6 w7", (-1.0, -1.0))
    return PolicyCohort(f"0-{number}", Window(0, number, (2, 3), (4, 5)), 0, (original, rollout))


def judges_of(queue: CohortQueue, count: Callable[[str], None] = lambda what: None, **settings: Any) -> Judges:
    """They judge by safety alone."""
    config, composition = JudgeConfig.model_validate(settings), Composition(weights={"safety": 1.0})
    return Judges(queue, "run1", config, Codec(word_tokenizer()), count, lambda window: composition)


async def test_a_rubric_for_what_a_cohort_is_not_judged_by_does_not_keep_it_from_the_judges(redis: Redis) -> None:
    queue = CohortQueue(redis)
    judges = judges_of(queue, rubrics={"safety": "own/safety", "factuality": "own/facts"})
    assert await judges.submit([cohort(1)]) == []
    await queue.open_group()
    [delivery] = await queue.take("worker")
    assert delivery.task.request.axes == ("safety",)
    assert delivery.task.request.rubrics == {"safety": "own/safety"}


class Asking(CohortQueue):
    """`asked` is set when Redis was asked what it has lost."""

    def __init__(self, redis: Redis, bound: int) -> None:
        super().__init__(redis, bound=bound)
        self.asked = asyncio.Event()

    async def missing(self, run: str, cohort_ids: Sequence[str]) -> list[str]:
        found = await super().missing(run, cohort_ids)
        self.asked.set()
        return found


async def test_what_still_waits_for_room_is_not_taken_for_what_redis_has_lost(redis: Redis) -> None:
    queue, counted = Asking(redis, bound=1), list[str]()
    judges = judges_of(queue, counted.append)
    submitting = asyncio.create_task(judges.submit([cohort(1), cohort(2)]))
    async with asyncio.timeout(20):
        while not await redis.xlen(COHORTS):  # noqa: ASYNC110  the first takes all the room there is
            await asyncio.sleep(0.01)
    judges.doubt()
    tending = asyncio.create_task(judges.tend())
    await queue.asked.wait()
    assert counted == []
    await queue.withdraw("run1", ["0-1"])
    assert await submitting == []
    await redis.flushall()
    queue.asked.clear()
    judges.doubt()
    await queue.asked.wait()
    assert counted == ["resubmitted"] * 2
    tending.cancel()
