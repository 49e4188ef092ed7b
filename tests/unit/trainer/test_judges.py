"""What the judges are asked, and when Redis is told again; whole runs are in integration/test_train_loop.py."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from preceptor_client.contract import Composition, Origin
from preceptor_client.queue import CohortQueue
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import JudgeConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.judges import Judges
from tiny_policy import word_tokenizer


def cohort(number: int) -> PolicyCohort:
    original = TokenCandidate("original", Origin.ORIGINAL, (4, 5), "w4 w5")
    rollout = TokenCandidate("rollout-0", Origin.ROLLOUT, (6, 7), "w6 w7", (-1.0, -1.0))
    return PolicyCohort(f"0-{number}", Window(0, number, (2, 3), (4, 5)), 0, (original, rollout))


def judges_of(queue: CohortQueue, weights: dict[str, float], **settings: Any) -> Judges:
    config, composition = JudgeConfig.model_validate(settings), Composition(weights=weights)
    return Judges(queue, "run1", config, Codec(word_tokenizer()), lambda what: None, lambda window: composition)


async def test_a_rubric_for_what_a_cohort_is_not_judged_by_does_not_keep_it_from_the_judges(redis: Redis) -> None:
    queue = CohortQueue(redis)
    judges = judges_of(queue, {"safety": 1.0}, rubrics={"safety": "own/safety", "factuality": "own/facts"})
    assert await judges.submit([cohort(1)]) == []
    await queue.open_group()
    [delivery] = await queue.take("worker")
    assert delivery.task.request.axes == ("safety",)
    assert delivery.task.request.rubrics == {"safety": "own/safety"}
