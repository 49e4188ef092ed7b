"""The cohort queue on a real Redis: what is submitted is judged, what is judged is answered, and nothing overflows."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

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
from preceptor_client.queue import GROUP, CohortQueue, QueueStatus, StoredResponse, connect
from preceptor_client.stack import Process, claim_port, redis_part


def a_task(name: str = "c1", run: str = "run1") -> JudgeTask:
    cohort = Cohort(id=name, prefix="the sky is", candidates=(Candidate(id="a", text="blue ✓"),))
    return JudgeTask(run=run, request=JudgeRequest(cohort=cohort, axes=("safety",)))


def an_answer(task: JudgeTask) -> JudgeResponse:
    provenance = Provenance(teacher="t", revision="r", rubric="s", rubric_hash="h", sampling=Sampling())
    return JudgeResponse(
        cohort_id=task.request.cohort.id,
        verdicts=(Verdict(candidate_id="a", axis="safety", status=Status.OK, score=1.0),),
        axes={"safety": AxisReport(provenance=provenance, usage=Usage(calls=1))},
        elapsed_s=0.1,
    )


async def letters(connection: Redis) -> list[dict[str, str]]:
    entries: Any = await connection.xrange("preceptor:dead")
    return [fields for _, fields in entries]


async def until_blocked(connection: Redis) -> None:
    """Returns when some client waits in a blocking read, which Redis tells only to those who ask."""
    async with asyncio.timeout(10):
        while not (await connection.info("clients"))["blocked_clients"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def collect(responses: AsyncIterator[StoredResponse], count: int) -> list[StoredResponse]:
    async with asyncio.timeout(10):
        return [await anext(responses) for _ in range(count)]


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def connection(redis: Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """The same queue over both wire protocols, whose blocking reads are shaped differently."""
    async with Redis.from_url(redis_url, decode_responses=True, protocol=request.param) as connection:
        yield connection


@pytest.fixture
async def queue(connection: Redis) -> CohortQueue:
    queue = CohortQueue(connection, bound=4)
    await queue.open_group()
    return queue


async def test_a_task_is_delivered_settled_and_answered_on_its_run(queue: CohortQueue) -> None:
    task = a_task()
    await queue.submit(task)
    assert await queue.status() == QueueStatus(1, 0, 0, {})
    [delivery] = await queue.take("w1")
    assert delivery.task == task
    assert await queue.status() == QueueStatus(0, 1, 0, {})
    assert await queue.settle(delivery, an_answer(task))
    assert await queue.status() == QueueStatus(0, 0, 0, {"run1": 1})
    [stored] = await collect(queue.responses("run1"), 1)
    assert stored.response == an_answer(task)


async def test_opening_the_group_again_changes_nothing(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    await queue.take("w1")
    await queue.open_group()
    assert await queue.status() == QueueStatus(0, 1, 0, {})


async def test_tasks_submitted_before_the_first_worker_came_are_delivered(connection: Redis) -> None:
    queue = CohortQueue(connection)
    await queue.submit(a_task())
    assert await queue.take("w1") == []  # creates the group
    assert [delivery.task for delivery in await queue.take("w1")] == [a_task()]


async def test_taking_from_an_empty_queue_returns_after_about_a_second(queue: CohortQueue) -> None:
    began = time.monotonic()
    assert await queue.take("w1") == []
    assert 0.9 < time.monotonic() - began < 5


async def test_a_waiting_worker_is_woken_by_a_submission(queue: CohortQueue, connection: Redis) -> None:
    waiting = asyncio.create_task(queue.take("w1"))
    await until_blocked(connection)
    began = time.monotonic()
    await queue.submit(a_task())
    assert len(await waiting) == 1
    assert time.monotonic() - began < 0.5


async def test_a_full_queue_holds_its_producer_until_a_task_is_retired(queue: CohortQueue) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    blocked = asyncio.create_task(queue.submit(a_task("c4")))
    [first, second] = await queue.take("w1", count=2)
    assert not (await asyncio.wait([blocked], timeout=1.3))[0], "taking is not retiring: the bound counts both"
    began = time.monotonic()
    await queue.settle(first, an_answer(first.task))
    await asyncio.wait_for(blocked, 5)
    assert time.monotonic() - began < 0.5, "the producer was woken, it did not wait out its second"
    blocked = asyncio.create_task(queue.submit(a_task("c5")))
    await queue.bury(second, "no such axis")
    await asyncio.wait_for(blocked, 5)
    assert await queue.status() == QueueStatus(4, 0, 1, {"run1": 1})


async def test_many_producers_never_exceed_the_bound(queue: CohortQueue, connection: Redis) -> None:
    seen: set[str] = set()

    async def worker(name: str) -> None:
        while len(seen) < 40:
            assert await connection.xlen("preceptor:cohorts") <= 4
            for delivery in await queue.take(name, count=3):
                assert await queue.settle(delivery, an_answer(delivery.task))
                seen.add(delivery.task.request.cohort.id)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(queue.submit(a_task(f"c{number}")))
        group.create_task(worker("w1"))
        group.create_task(worker("w2"))
    assert seen == {f"c{number}" for number in range(40)}
    assert (await queue.status()).verdicts == {"run1": 40}


async def test_two_workers_share_the_tasks_without_overlap(queue: CohortQueue) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    first, second = await queue.take("w1", count=2), await queue.take("w2", count=4)
    ids = [delivery.task.request.cohort.id for delivery in (*first, *second)]
    assert sorted(ids) == ["c0", "c1", "c2", "c3"]
    assert len(first) == len(second) == 2


async def test_a_dead_workers_task_is_reclaimed_after_its_lease_and_not_before(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    [lost] = await queue.take("dead")
    assert await queue.take("w2", lease_ms=60_000) == []
    [claimed] = await queue.take("w2", lease_ms=1)
    assert claimed == lost


async def test_a_slow_worker_cannot_answer_a_second_time(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    [slow] = await queue.take("slow")
    [fast] = await queue.take("fast", lease_ms=0)
    assert await queue.settle(fast, an_answer(fast.task))
    assert not await queue.settle(slow, an_answer(slow.task))
    assert not await queue.bury(slow, "too late")
    assert await queue.status() == QueueStatus(0, 0, 0, {"run1": 1})


async def test_a_buried_task_keeps_its_content_and_the_reason(queue: CohortQueue, connection: Redis) -> None:
    await queue.submit(a_task())
    [delivery] = await queue.take("w1")
    assert await queue.bury(delivery, "the teacher has no such rubric")
    [letter] = await letters(connection)
    assert JudgeTask.model_validate_json(letter["task"]) == a_task()
    assert letter["reason"] == "the teacher has no such rubric"


async def test_an_undecodable_task_is_buried_with_its_content_and_the_next_is_delivered(
    queue: CohortQueue, connection: Redis
) -> None:
    await connection.xadd("preceptor:cohorts", {"task": '{"run": 1}'})
    await connection.xadd("preceptor:cohorts", {"other": "field"})
    await queue.submit(a_task())
    [delivery] = await queue.take("w1", count=10)
    assert delivery.task == a_task()
    first, second = await letters(connection)
    assert first["task"] == '{"run": 1}'
    assert second["other"] == "field"
    assert first["reason"].startswith("cannot be decoded")
    assert second["reason"].startswith("cannot be decoded")
    assert (await queue.status()).in_flight == 1


async def test_a_task_deleted_by_hand_while_a_worker_held_it_does_not_stop_the_others(
    queue: CohortQueue, connection: Redis
) -> None:
    await queue.submit(a_task("c0"))
    [held] = await queue.take("w1")
    await connection.xdel("preceptor:cohorts", held.entry_id)
    await queue.submit(a_task("c1"))
    [delivery] = await queue.take("w2", lease_ms=0)
    assert delivery.task == a_task("c1")


async def test_responses_are_replayed_in_order_until_they_are_forgotten(queue: CohortQueue) -> None:
    for number in range(3):
        await queue.submit(a_task(f"c{number}"))
    for delivery in await queue.take("w1", count=3):
        await queue.settle(delivery, an_answer(delivery.task))
    stored = await collect(queue.responses("run1"), 3)
    assert [one.response.cohort_id for one in stored] == ["c0", "c1", "c2"]
    await queue.forget("run1", [stored[0].entry_id, stored[2].entry_id])
    await queue.forget("run1", [])
    [replayed] = await collect(queue.responses("run1"), 1)
    assert replayed == stored[1]


async def test_a_waiting_reader_is_woken_by_a_response_of_its_run_only(queue: CohortQueue) -> None:
    reader = asyncio.create_task(collect(queue.responses("run2"), 1))
    for number, run in enumerate(["run1", "run2"]):
        await queue.submit(a_task(f"c{number}", run))
    for delivery in await queue.take("w1", count=2):
        await queue.settle(delivery, an_answer(delivery.task))
    assert [stored.response.cohort_id for stored in await reader] == ["c1"]


async def test_an_undecodable_response_goes_to_the_dead_letters(queue: CohortQueue, connection: Redis) -> None:
    await connection.xadd("preceptor:verdicts:run1", {"response": "{}"})
    await queue.submit(a_task())
    [delivery] = await queue.take("w1")
    await queue.settle(delivery, an_answer(delivery.task))
    [stored] = await collect(queue.responses("run1"), 1)
    assert stored.response.cohort_id == "c1"
    assert (await queue.status()).dead == 1


async def test_namespaces_do_not_meet(connection: Redis) -> None:
    one, other = CohortQueue(connection, namespace="one"), CohortQueue(connection, namespace="other")
    await one.open_group()
    await other.open_group()
    await one.submit(a_task())
    assert (await other.status()).waiting == 0
    assert (await one.status()).waiting == 1


async def test_a_blocking_read_outlives_a_socket_time_out(redis: Redis, redis_url: str) -> None:
    impatient = Redis.from_url(redis_url, decode_responses=True, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    async with impatient:
        queue = CohortQueue(impatient)
        await queue.open_group()
        assert await queue.take("w1") == []
        reader = asyncio.create_task(collect(queue.responses("run1"), 1))
        await until_blocked(redis)
        task = a_task()
        await queue.submit(task)
        [delivery] = await queue.take("w1")
        await queue.settle(delivery, an_answer(task))
        assert len(await reader) == 1


async def test_a_redis_that_is_killed_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    port = claim_port()
    server = Process(redis_part(tmp_path, port=port))
    server.wait_ready()
    try:
        async with connect(f"redis://127.0.0.1:{port}/0") as connection:
            await connection.config_set("appendfsync", "always")
            queue = CohortQueue(connection)
            await queue.open_group()
            await queue.submit(a_task("c0"))
            [delivery] = await queue.take("w1")
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
            settling = asyncio.create_task(queue.settle(delivery, an_answer(delivery.task)))
            submitting = asyncio.create_task(queue.submit(a_task("c1")))
            server = Process(redis_part(tmp_path, port=port))
            await asyncio.wait_for(asyncio.gather(settling, submitting), 30)
            assert await queue.status() == QueueStatus(1, 0, 0, {"run1": 1})
    finally:
        server.stop()


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="bound must be at least 1, not 0"):
        CohortQueue(Redis(), bound=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.dictionaries(
        st.sampled_from(["task", "run", "x"]), st.text(st.characters(exclude_categories=["Cs"])), min_size=1
    )
)
async def test_no_content_of_an_entry_can_stop_a_worker(redis_url: str, fields: dict[str, str]) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as connection:
        await connection.flushall()
        queue = CohortQueue(connection)
        await queue.open_group()
        await connection.xadd("preceptor:cohorts", fields)  # type: ignore[arg-type]
        assert await queue.take("w1") == []
        assert await queue.status() == QueueStatus(0, 0, 1, {})
        assert (await connection.xpending("preceptor:cohorts", GROUP))["pending"] == 0
