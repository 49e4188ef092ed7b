"""Bytes in the cohort queue that nobody can read, on a real Redis: they stop neither a worker nor a reader."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from preceptor_client.queue import CohortQueue, QueueOperations, connect
from queued import COHORTS, VERDICTS, a_task, answer, collect, counts, entries, taken


async def test_an_unreadable_outcome_of_a_known_cohort_ends_it_with_a_notice(
    queue: CohortQueue, connection: Redis, operations: QueueOperations
) -> None:
    await queue.submit(a_task())
    await answer(queue, await taken(queue))
    [(stored, _)] = await entries(connection, VERDICTS)
    async with connection.pipeline(transaction=True) as change:  # as a worker of another version might write it
        change.xdel(VERDICTS, stored)
        change.xadd(VERDICTS, {"cohort": "c1", "response": '{"cohort_id": "c1", "verdict": 3}'})
        change.xrange(VERDICTS)
        *_, [(entry, _)] = await change.execute()
    await connection.hset("preceptor:known:run1", "c1", f"answered:{entry}")
    [notice] = await collect(queue.outcomes("run1"), 1)
    assert notice.dead is not None
    assert notice.dead.startswith("cannot be decoded: ")
    assert await counts(operations) == (0, 0, 0, 1)
    await queue.forget("run1", [notice])
    assert await queue.runs() == []


async def test_an_unreadable_task_is_buried_with_its_content_and_a_notice_and_the_next_is_delivered(
    queue: CohortQueue, connection: Redis, operations: QueueOperations
) -> None:
    await queue.submit(a_task("good"))
    await queue.submit(a_task("bad"))
    [_, (entry, _)] = await entries(connection, COHORTS)
    async with connection.pipeline(transaction=True) as change:
        change.xdel(COHORTS, entry)
        change.xadd(COHORTS, {"run": "run1", "cohort": "bad", "task": '{"run": 1}'})
        change.xadd(COHORTS, {"other": "field"})
        *_, changed, _ = await change.execute()
    await connection.hset("preceptor:known:run1", "bad", changed)
    [delivery] = await queue.take("w1", count=10)
    assert delivery.task == a_task("good")
    first, second = await operations.dead()
    assert (first.run, first.cohort_id, first.task) == ("run1", "bad", '{"run": 1}')
    assert (second.run, second.cohort_id, second.task) == ("", "", "")
    assert {letter.reason[:18] for letter in (first, second)} == {"cannot be decoded:"}
    [_, (_, fields)] = await entries(connection, "preceptor:dead")
    assert fields["other"] == "field"
    [notice] = await collect(queue.outcomes("run1"), 1)
    assert (notice.cohort_id, notice.dead) == ("bad", first.reason)


FIELDS = st.dictionaries(
    st.sampled_from([b"run", b"cohort", b"task", b"response", b"dead", b"reason", b"attempts"]) | st.binary(max_size=4),
    st.binary(max_size=16) | st.sampled_from([b"run1", b"c1", b'{"run": 1}', a_task().model_dump_json().encode()]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=FIELDS)
async def test_no_bytes_in_a_task_can_stop_a_worker(redis_url: str, fields: dict[bytes, bytes]) -> None:
    async with connect(redis_url) as connection:
        await connection.flushall()
        queue, operations = CohortQueue(connection), QueueOperations(connection)
        await queue.open_group()
        await connection.xadd(COHORTS, fields)  # type: ignore[arg-type]
        await queue.submit(a_task("next"))
        delivered = await queue.take("w1", count=2)
        assert delivered[-1].task == a_task("next")
        status = await operations.status()
        assert (status.in_flight, status.dead) == (len(delivered), 2 - len(delivered))
        for letter in await operations.dead():
            assert letter.reason.startswith("cannot be decoded")
        await operations.replay()
        await operations.purge_dead()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=FIELDS)
async def test_no_bytes_in_an_outcome_can_stop_a_reader(redis_url: str, fields: dict[bytes, bytes]) -> None:
    async with connect(redis_url) as connection:
        await connection.flushall()
        queue = CohortQueue(connection)
        await queue.open_group()
        await connection.xadd(VERDICTS, fields)  # type: ignore[arg-type]
        await queue.submit(a_task("next"))
        await answer(queue, await taken(queue))
        async for outcome in queue.outcomes("run1"):
            if outcome.cohort_id == "next":
                break
            assert outcome.dead is not None
