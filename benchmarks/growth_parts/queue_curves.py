"""The queue against its depth (cohorts that wait) and against what is in flight, on a Redis of its own.

Costs are those of one cohort, in groups of 64: a queue that is indifferent to what it holds has the exponent 0.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import aclosing
from itertools import count, islice
from statistics import median

from redis.asyncio import Redis

from benchmarks.growth_parts.curves import Curve
from preceptor_client.contract import (
    AxisReport,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    JudgeTask,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_client.queue import CohortQueue, QueueOperations

RUN, GROUP, TIMES = "growth", 64, 9
_BOUND = 10_000_000
_TEXT = "a continuation of some thirty words, as a policy would write it; " * 3


def tasks() -> Iterator[JudgeTask]:
    """Of about two kilobytes, each with an id of its own."""
    candidates = tuple(Candidate(id=f"rollout-{place}", text=f"{place} {_TEXT}") for place in range(4))
    for number in count():
        cohort = Cohort(id=f"0-{number}", prefix=_TEXT * 5, candidates=candidates)
        yield JudgeTask(run=RUN, request=JudgeRequest(cohort=cohort, axes=("safety",)))


def answer(task: JudgeTask) -> JudgeResponse:
    """Safe, all of them."""
    provenance = Provenance(teacher="t", revision="r", rubric="s", rubric_hash="h", sampling=Sampling())
    return JudgeResponse(
        cohort_id=task.request.cohort.id,
        verdicts=tuple(
            Verdict(candidate_id=each.id, axis="safety", status=Status.OK, score=1.0)
            for each in task.request.cohort.candidates
        ),
        axes={"safety": AxisReport(provenance=provenance, usage=Usage(calls=4))},
        elapsed_s=0.1,
    )


async def depth_curves(redis: Redis, depths: Sequence[int]) -> AsyncIterator[Curve]:
    """`depths` ascend: each begins where the one before ended."""
    queue, source = await _emptied(redis), tasks()
    empty = await _memory(redis)
    submitting, passing, status, memory = [], [], [], []
    waiting = 0
    for depth in depths:
        while waiting < depth:
            group = list(islice(source, min(GROUP, depth - waiting)))
            await queue.submit_many(group)
            waiting += len(group)
        memory.append((await _memory(redis) - empty) / 1e6)
        status.append(median([await _seconds(QueueOperations(redis).status()) for _ in range(TIMES)]))
        groups = [list(islice(source, GROUP)) for _ in range(TIMES)]
        submitting.append(median([await _seconds(queue.submit_many(group)) for group in groups]) / GROUP)
        passing.append(median([await _seconds(_through(queue)) for _ in groups]) / GROUP)
    yield Curve("queue: submit one", "cohorts waiting", "s", depths, submitting, "constant")
    yield Curve("queue: judge, read, forget one", "cohorts waiting", "s", depths, passing, "constant")
    yield Curve("queue: status", "cohorts waiting", "s", depths, status)
    yield Curve("queue: Redis", "cohorts waiting", "MB", depths, memory)


async def in_flight_curve(redis: Redis, sizes: Sequence[int]) -> Curve:
    """A worker takes and settles while others hold so many."""
    queue, source = await _emptied(redis), tasks()
    held, taking = 0, []
    for size in sizes:
        await queue.submit_many(list(islice(source, size - held + TIMES * GROUP)))
        while held < size:
            held += len(await queue.take("others", count=min(256, size - held), lease_ms=3_600_000))
        seconds = []
        for _ in range(TIMES):
            began = time.perf_counter()
            taken = await queue.take("judge", count=GROUP, lease_ms=3_600_000)
            seconds.append((time.perf_counter() - began) / len(taken))
            await queue.settle_many([(each, answer(each.task)) for each in taken])
        taking.append(median(seconds))
    return Curve("queue: take one", "cohorts in flight", "s", sizes, taking, "constant")


async def _emptied(redis: Redis) -> CohortQueue:
    await redis.flushall()
    queue = CohortQueue(redis, bound=_BOUND, run_bound=_BOUND)
    await queue.open_group()
    return queue


async def _through(queue: CohortQueue) -> None:
    """A group from the queue to the trainer that forgets it."""
    taken = await queue.take("judge", count=GROUP)
    await queue.settle_many([(each, answer(each.task)) for each in taken])
    left = len(taken)
    async with aclosing(queue.outcome_pages(RUN)) as pages:
        async for page in pages:
            await queue.forget(RUN, page)
            left -= len(page)
            if left <= 0:
                return


async def _seconds(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _memory(redis: Redis) -> float:
    return float((await redis.info("memory"))["used_memory"])
