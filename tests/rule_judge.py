"""A queue worker that scores by a rule, so that the right outcome is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from preceptor_client.contract import JudgeRequest, JudgeResponse, Status, Verdict
from preceptor_client.queue import CohortQueue, Delivery
from preceptor_services.composition import compose

Rule = Callable[[str], float | Status]
Settle = Callable[[CohortQueue, Delivery], Any]
GOOD = {f"w{number}" for number in range(2, 30)}


def share_of_good_words(text: str) -> float:
    words = text.split()
    return sum(word in GOOD for word in words) / len(words)


def answer(request: JudgeRequest, rule: Rule) -> JudgeResponse:
    verdicts = []
    for axis in request.axes:
        for candidate in request.cohort.candidates:
            score = rule(candidate.text)
            ok = not isinstance(score, Status)
            verdicts.append(
                Verdict(
                    candidate_id=candidate.id,
                    axis=axis,
                    status=Status.OK if ok else score,
                    score=score if ok else None,
                    reason=None if ok else "the rule says so",
                )
            )
    scores = {(verdict.candidate_id, verdict.axis): verdict.score for verdict in verdicts if verdict.score is not None}
    assert request.composition is not None
    return JudgeResponse(
        cohort_id=request.cohort.id,
        verdicts=tuple(verdicts),
        axes={},
        composites=compose(request.composition, request.cohort, scores),
        elapsed_s=0.0,
    )


@asynccontextmanager
async def judge(redis: Redis, settle: Settle) -> AsyncIterator[None]:
    """A worker that passes every task to `settle`."""
    queue = CohortQueue(redis)
    await queue.open_group()

    async def work() -> None:
        while True:
            for delivery in await queue.take("rule", count=4, lease_ms=60_000):
                await settle(queue, delivery)

    worker = asyncio.create_task(work())
    try:
        yield
    finally:
        while not worker.done():
            worker.cancel()
            await asyncio.wait([worker], timeout=1)


def by_rule(rule: Rule) -> Settle:
    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        await queue.settle(delivery, answer(delivery.task.request, rule))

    return settle
