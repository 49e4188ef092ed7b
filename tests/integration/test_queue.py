"""The cohort queue on a real Redis: what is submitted ends exactly once, and nothing overflows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.queue import CohortQueue, QueueOperations
from queued import (
    COHORTS,
    VERDICTS,
    a_task,
    an_answer,
    answer,
    both_protocols,
    collect,
    counts,
    one_of_each,
    taken,
    until_blocked,
)


@both_protocols
async def test_a_task_is_delivered_settled_answered_and_forgotten(
    queue: CohortQueue, operations: QueueOperations
) -> None:
    task = a_task()
    assert await queue.submit(task)
    assert await counts(operations) == (1, 0, 0, 0)
    delivery = await taken(queue)
    assert (delivery.task, delivery.attempt, delivery.last_error) == (task, 1, None)
    assert await counts(operations) == (0, 1, 0, 0)
    assert await answer(queue, delivery)
    assert await counts(operations) == (0, 0, 1, 0)
    [outcome] = await collect(queue.outcomes("run1"), 1)
    assert (outcome.cohort_id, outcome.response, outcome.dead) == ("c1", an_answer(task), None)
    assert await queue.runs() == ["run1"]
    await queue.forget("run1", [outcome])
    assert await counts(operations) == (0, 0, 0, 0)
    assert await queue.runs() == []


async def test_a_cohort_is_submitted_once_until_it_is_forgotten(
    queue: CohortQueue, operations: QueueOperations
) -> None:
    assert await queue.submit(a_task())
    assert not await queue.submit(a_task())
    delivery = await taken(queue)
    assert not await queue.submit(a_task())
    await answer(queue, delivery)
    assert not await queue.submit(a_task())
    assert await queue.submit(a_task(run="run2")), "another run's cohort of the same name is another cohort"
    assert await counts(operations) == (1, 0, 1, 0)
    await queue.forget("run1", await collect(queue.outcomes("run1"), 1))
    assert await queue.submit(a_task())


async def test_opening_the_group_again_changes_nothing(queue: CohortQueue, operations: QueueOperations) -> None:
    await queue.submit(a_task())
    await taken(queue)
    await queue.open_group()
    assert await counts(operations) == (0, 1, 0, 0)


async def test_tasks_submitted_before_the_first_worker_came_are_delivered(connection: Redis) -> None:
    queue = CohortQueue(connection)
    await queue.submit(a_task())
    assert await queue.take("w1") == []  # makes the group
    assert (await taken(queue)).task == a_task()


async def test_taking_from_an_empty_queue_returns_after_about_a_second(queue: CohortQueue) -> None:
    began = time.monotonic()
    assert await queue.take("w1") == []
    assert time.monotonic() - began > 0.9


@both_protocols
async def test_a_waiting_worker_is_woken_by_a_submission(queue: CohortQueue, connection: Redis) -> None:
    waiting = asyncio.create_task(queue.take("w1"))
    await until_blocked(connection)
    await queue.submit(a_task())
    assert len(await waiting) == 1


@both_protocols
async def test_many_are_submitted_settled_and_read_as_one_by_one(
    connection: Redis, operations: QueueOperations
) -> None:
    queue = CohortQueue(connection)
    await queue.open_group()
    tasks = [a_task(f"c{number}", run) for run in ("run1", "run2") for number in range(100)]
    await queue.submit_many([tasks[3], tasks[150]])
    new = await queue.submit_many([*tasks, tasks[0]])
    assert [place for place, appended in enumerate(new) if not appended] == [3, 150, 200], "known, or twice in one call"
    deliveries = await queue.take("w1", count=300)
    assert {(each.task.run, each.task.request.cohort.id) for each in deliveries} == {
        (task.run, task.request.cohort.id) for task in tasks
    }
    assert len(deliveries) == 200
    assert await answer(queue, deliveries[7])
    answers = [(delivery, an_answer(delivery.task)) for delivery in (*deliveries, deliveries[9])]
    settled = await queue.settle_many(answers)
    assert [place for place, first in enumerate(settled) if not first] == [7, 200]
    assert await counts(operations) == (0, 0, 200, 0)
    outcomes = []
    async for page in queue.outcome_pages("run1"):
        outcomes += page
        if len(outcomes) == 100:
            break
    assert {outcome.cohort_id for outcome in outcomes} == {f"c{number}" for number in range(100)}
    await queue.forget("run1", outcomes)
    assert await queue.runs() == ["run2"]
    assert await connection.xlen(VERDICTS) == 0


async def test_of_many_those_without_room_wait_and_none_is_lost_or_doubled(queue: CohortQueue) -> None:
    submitting = asyncio.create_task(queue.submit_many([a_task(f"c{number}") for number in range(30)]))
    seen: list[str] = []
    async with asyncio.timeout(20):
        while len(seen) < 30:
            deliveries = await queue.take("w1", count=3)
            assert len(seen) + len(deliveries) <= 30
            await queue.settle_many([(delivery, an_answer(delivery.task)) for delivery in deliveries])
            seen += [delivery.task.request.cohort.id for delivery in deliveries]
        assert await submitting == [True] * 30
    assert seen == [f"c{number}" for number in range(30)]


async def test_large_payloads_go_in_calls_of_a_bounded_size(queue: CohortQueue, connection: Redis) -> None:
    big = CohortQueue(connection, bound=64)
    tasks = [a_task(f"c{number}", prefix="x" * 65_536) for number in range(40)]
    assert all(await big.submit_many(tasks))
    await connection.config_resetstat()
    assert not any(await big.submit_many(tasks))
    calls: Any = await connection.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 3, "15 of 66 KB are as many as a megabyte holds"


async def test_workers_that_settle_at_the_same_time_share_a_call(queue: CohortQueue, connection: Redis) -> None:
    roomy = CohortQueue(connection)
    await roomy.submit_many([a_task(f"c{number}") for number in range(20)])
    deliveries = await roomy.take("w1", count=20)
    await connection.config_resetstat()
    assert all(await asyncio.gather(*(answer(roomy, delivery) for delivery in deliveries)))
    calls: Any = await connection.info("commandstats")
    steps = sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
    assert steps <= 3


@both_protocols
async def test_a_full_queue_holds_its_producer_until_a_task_ends(
    queue: CohortQueue, operations: QueueOperations, connection: Redis
) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    blocked = asyncio.create_task(queue.submit(a_task("c4")))
    await until_blocked(connection)
    [first, second] = await queue.take("w1", count=2)
    assert not (await asyncio.wait([blocked], timeout=1.3))[0], "taking does not end a task: the bound counts both"
    await until_blocked(connection)
    await answer(queue, first)
    assert await asyncio.wait_for(blocked, 5)
    blocked = asyncio.create_task(queue.submit(a_task("c5")))
    await until_blocked(connection)
    await queue.bury(second, "no such axis")
    assert await asyncio.wait_for(blocked, 5)
    assert await counts(operations) == (4, 0, 1, 1)


async def test_a_run_that_forgets_nothing_is_held_at_its_own_bound(connection: Redis) -> None:
    queue = CohortQueue(connection, run_bound=3)
    await queue.open_group()
    for number in range(3):
        await queue.submit(a_task(f"c{number}"))
        await answer(queue, await taken(queue))
    blocked = asyncio.create_task(queue.submit(a_task("c3")))
    await until_blocked(connection)
    assert await queue.submit(a_task("c3", "run2")), "other runs go on"
    assert not blocked.done()
    await queue.forget("run1", await collect(queue.outcomes("run1"), 1))
    assert await asyncio.wait_for(blocked, 5)
    assert await connection.xlen(VERDICTS) == 2


async def test_many_producers_never_exceed_the_bound(queue: CohortQueue, connection: Redis) -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        while len(seen) < 40:
            assert await connection.xlen(COHORTS) <= 4
            for delivery in await queue.take(name, count=3):
                assert await answer(queue, delivery)
                seen.append(delivery.task.request.cohort.id)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(queue.submit(a_task(f"c{number}")))
        group.create_task(work("w1"))
        group.create_task(work("w2"))
    assert sorted(seen) == sorted(f"c{number}" for number in range(40))


async def test_missing_names_what_redis_lost_and_nothing_else(queue: CohortQueue, connection: Redis) -> None:
    held = await one_of_each(queue)
    names = [f"c{number}" for number in range(5)]
    assert await queue.missing("run1", names) == ["c4"]
    await connection.xdel(COHORTS, held.entry_id)
    assert await queue.missing("run1", names) == ["c2", "c4"]
    assert await queue.submit(held.task)
    await connection.flushall()
    assert await queue.missing("run1", names) == names


async def test_after_everything_was_lost_workers_readers_and_producers_go_on(
    queue: CohortQueue, connection: Redis, redis_url: str
) -> None:
    await queue.submit(a_task("c0"))
    reader = asyncio.create_task(collect(queue.outcomes("run1"), 1))
    await taken(queue)
    waiting = asyncio.create_task(queue.take("w1"))
    await until_blocked(connection, 2)
    await connection.flushall()
    assert await queue.missing("run1", ["c0"]) == ["c0"]
    await queue.submit(a_task("c0"))
    deliveries = await waiting
    async with asyncio.timeout(10):
        while not deliveries:
            deliveries = await queue.take("w1")
    assert await answer(queue, deliveries[0])
    assert [outcome.cohort_id for outcome in await reader] == ["c0"]


async def test_outcomes_come_again_in_order_until_they_are_forgotten(queue: CohortQueue) -> None:
    for number in range(3):
        await queue.submit(a_task(f"c{number}"))
    for delivery in await queue.take("w1", count=3):
        await answer(queue, delivery)
    outcomes = await collect(queue.outcomes("run1"), 3)
    assert [outcome.cohort_id for outcome in outcomes] == ["c0", "c1", "c2"]
    await queue.forget("run1", [outcomes[0], outcomes[2]])
    await queue.forget("run1", [])
    assert await collect(queue.outcomes("run1"), 1) == [outcomes[1]]


@both_protocols
async def test_a_waiting_reader_is_woken_by_an_outcome_of_its_run_only(queue: CohortQueue) -> None:
    reader = asyncio.create_task(collect(queue.outcomes("run2"), 1))
    for number, run in enumerate(["run1", "run2"]):
        await queue.submit(a_task(f"c{number}", run))
    for delivery in await queue.take("w1", count=2):
        await answer(queue, delivery)
    assert [outcome.cohort_id for outcome in await reader] == ["c1"]


async def test_namespaces_do_not_meet(connection: Redis) -> None:
    one = CohortQueue(connection, namespace="one")
    await one.submit(a_task())
    assert (await QueueOperations(connection, namespace="other").status()).waiting == 0
    assert (await QueueOperations(connection, namespace="one").status()).waiting == 1


@pytest.mark.parametrize("name", ["bound", "run_bound", "max_deliveries"])
def test_a_bound_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        CohortQueue(Redis(), **{name: 0})  # type: ignore[arg-type]
