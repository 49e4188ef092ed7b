"""What KEDA's triggers see of the queue, so that no cohort is left behind when the workers are scaled to none."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.queue import GROUP, CohortQueue
from preceptor_client.queue.steps import Keys
from queued import a_task, answer

STREAM = Keys("preceptor").cohorts


@pytest.fixture
async def queue(redis: Redis) -> CohortQueue:
    queue = CohortQueue(redis)
    await queue.open_group()
    return queue


async def lag(redis: Redis) -> int:
    """Entries that the group was not given yet, which is what Redis 7 calls its lag, unless it cannot tell."""
    [group] = [one for one in await redis.xinfo_groups(STREAM) if one["name"] == GROUP]
    waiting: Any = await redis.xrange(STREAM, min=f"({group['last-delivered-id']}")
    assert group.get("lag") in (None, len(waiting))
    return len(waiting)


async def test_a_cohort_counts_until_it_has_ended(redis: Redis, queue: CohortQueue) -> None:
    assert await redis.xlen(STREAM) == 0
    await queue.submit(a_task())
    assert (await lag(redis), await redis.xlen(STREAM)) == (1, 1)
    [delivery] = await queue.take("w1", lease_ms=60_000)
    assert (await lag(redis), await redis.xlen(STREAM)) == (0, 1)
    assert await answer(queue, delivery)
    assert (await lag(redis), await redis.xlen(STREAM)) == (0, 0)


async def test_what_a_stopped_worker_handed_back_counts_though_the_group_has_no_lag(
    redis: Redis, queue: CohortQueue
) -> None:
    await queue.submit(a_task())
    [delivery] = await queue.take("w1", lease_ms=60_000)
    await queue.hand_back("w1", [delivery])
    await queue.leave("w1")
    assert (await lag(redis), await redis.xlen(STREAM)) == (0, 1)


async def test_what_a_run_withdrew_does_not_count_though_redis_cannot_tell_the_lag(
    redis: Redis, queue: CohortQueue
) -> None:
    await queue.submit_many([a_task("c1"), a_task("c2"), a_task("c3")])
    await queue.take("w1", lease_ms=60_000)
    await queue.withdraw("run1", ["c2"])
    assert (await lag(redis), await redis.xlen(STREAM)) == (1, 2)


async def test_before_the_first_worker_there_is_a_length_though_there_is_no_group(redis: Redis) -> None:
    await CohortQueue(redis).submit(a_task())
    assert await redis.xlen(STREAM) == 1
