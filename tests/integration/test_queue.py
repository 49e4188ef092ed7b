"""The cohort queue on a real Redis: what is submitted ends exactly once, and nothing overflows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from preceptor_client.contract import JudgeTask
from preceptor_client.queue import GROUP, CohortQueue, Delivery, QueueOperations, QueueStatus, RunStatus, connect
from queued import a_task, an_answer, answer, collect, until_blocked

COHORTS, VERDICTS = "preceptor:cohorts", "preceptor:verdicts:run1"


both_protocols = pytest.mark.parametrize("connection", [2, 3], ids=["RESP2", "RESP3"], indirect=True)
"""Answers to blocking reads and to scripts are shaped differently over them."""


@pytest.fixture
async def connection(redis: Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with connect(f"{redis_url}?protocol={getattr(request, 'param', 3)}") as connection:
        yield connection


@pytest.fixture
async def queue(connection: Redis) -> CohortQueue:
    queue = CohortQueue(connection, bound=4)
    await queue.open_group()
    return queue


@pytest.fixture
def operations(connection: Redis) -> QueueOperations:
    return QueueOperations(connection)


async def counts(operations: QueueOperations) -> tuple[int, int, int, int]:
    """Waiting, in flight, answered, dead."""
    status = await operations.status()
    answered = sum(run.answered for run in status.runs.values())
    return status.waiting, status.in_flight, answered, status.dead


async def entries(connection: Redis, stream: str) -> list[tuple[str, dict[str, str]]]:
    found: Any = await connection.xrange(stream)
    return list(found)


async def taken(queue: CohortQueue, consumer: str = "w1", lease_ms: int = 60_000) -> Delivery:
    [delivery] = await queue.take(consumer, lease_ms=lease_ms)
    return delivery


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


async def test_two_workers_share_the_tasks_without_overlap(queue: CohortQueue) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    first, second = await queue.take("w1", count=2), await queue.take("w2", count=4)
    assert sorted(delivery.task.request.cohort.id for delivery in (*first, *second)) == ["c0", "c1", "c2", "c3"]
    assert len(first) == len(second) == 2


async def test_a_dead_workers_task_is_taken_over_after_its_lease_and_not_before(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    lost = await taken(queue, "dead")
    assert await queue.take("w2", lease_ms=60_000) == []
    claimed = await taken(queue, "w2", lease_ms=1)
    assert (claimed.entry_id, claimed.task, claimed.attempt) == (lost.entry_id, lost.task, 2)


async def test_one_expired_lease_is_found_among_many_that_are_renewed(connection: Redis) -> None:
    queue = CohortQueue(connection)
    await queue.open_group()
    for number in range(60):
        await queue.submit(a_task(f"c{number}"))
    held = await queue.take("busy", count=59)
    lost = await taken(queue, "dead")
    await connection.xclaim(COHORTS, GROUP, "dead", 0, [lost.entry_id], idle=10_000)
    assert await queue.renew("busy", held) == []
    claimed = await taken(queue, "w2", lease_ms=5_000)
    assert claimed.entry_id == lost.entry_id


async def test_a_renewed_lease_does_not_run_out_and_counts_no_attempt(queue: CohortQueue, connection: Redis) -> None:
    await queue.submit(a_task())
    delivery = await taken(queue)
    await connection.xclaim(COHORTS, GROUP, "w1", 0, [delivery.entry_id], idle=10_000, justid=True)
    assert await queue.renew("w1", [delivery]) == []
    assert await queue.take("w2", lease_ms=5_000) == []
    [pending] = await connection.xpending_range(COHORTS, GROUP, "-", "+", 1)
    assert (pending["consumer"], pending["times_delivered"]) == ("w1", 1)


async def test_a_worker_learns_which_tasks_it_holds_no_longer(queue: CohortQueue) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    [settled, withdrawn, over, held] = await queue.take("w1", count=4)
    await answer(queue, settled)
    assert await queue.withdraw("run1", ["c1"]) == 1
    assert [delivery.entry_id for delivery in await queue.take("w2", count=1, lease_ms=0)] == [over.entry_id]
    assert await queue.renew("w1", [settled, withdrawn, over, held]) == [settled, withdrawn, over]
    assert await queue.renew("w1", []) == []


@both_protocols
async def test_what_is_handed_back_goes_to_others_at_once(queue: CohortQueue, operations: QueueOperations) -> None:
    await queue.submit(a_task())
    delivery = await taken(queue)
    await queue.hand_back("w1", [delivery])
    await queue.hand_back("w1", [delivery])  # as after a lost answer
    assert await counts(operations) == (1, 0, 0, 0)
    assert await queue.renew("w1", [delivery]) == [delivery]
    await queue.leave("w1")
    assert (await operations.status()).workers == 0
    delivery = await taken(queue, "w2")
    assert (delivery.attempt, delivery.last_error) == (1, None), "it was not tried"
    await queue.hand_back("w2", [delivery], "the engine went away")
    delivery = await taken(queue, "w3")
    assert (delivery.attempt, delivery.last_error) == (2, "the engine went away")
    await queue.hand_back("w1", [delivery], "by one who does not hold it")
    assert await queue.renew("w3", [delivery]) == []


async def test_a_worker_counts_from_its_first_question_until_it_leaves(
    queue: CohortQueue, operations: QueueOperations
) -> None:
    assert await queue.take("idle") == []
    assert (await operations.status()).workers == 1
    await queue.leave("idle")
    assert (await operations.status()).workers == 0


async def test_after_the_last_delivery_a_task_is_buried_with_its_attempts_and_last_error(
    connection: Redis, operations: QueueOperations
) -> None:
    queue = CohortQueue(connection, max_deliveries=3)
    await queue.open_group()
    await queue.submit(a_task())
    for attempt in range(1, 4):
        delivery = await taken(queue)
        assert delivery.attempt == attempt
        await queue.hand_back("w1", [delivery], f"error {attempt}")
    assert await queue.take("w1") == []
    [letter] = await operations.dead()
    assert (letter.run, letter.cohort_id, letter.attempts, letter.last_error) == ("run1", "c1", 3, "error 3")
    assert letter.reason == "it was delivered 3 times and not answered; the last error: error 3"
    assert JudgeTask.model_validate_json(letter.task) == a_task()
    [notice] = await collect(queue.outcomes("run1"), 1)
    assert (notice.cohort_id, notice.response, notice.dead) == ("c1", None, letter.reason)
    assert await connection.exists("preceptor:errors") == 0


async def test_a_slow_worker_cannot_answer_a_second_time(queue: CohortQueue, operations: QueueOperations) -> None:
    await queue.submit(a_task())
    slow, fast = await taken(queue, "slow"), await taken(queue, "fast", lease_ms=0)
    assert await answer(queue, fast)
    assert not await answer(queue, slow)
    assert not await queue.bury(slow, "too late")
    assert await counts(operations) == (0, 0, 1, 0)


async def test_whoever_settles_first_wins_even_if_its_lease_ran_out(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    slow, fast = await taken(queue, "slow"), await taken(queue, "fast", lease_ms=0)
    assert await queue.settle(slow, an_answer(slow.task, 0.0))
    assert not await queue.settle(fast, an_answer(fast.task, 1.0))
    [outcome] = await collect(queue.outcomes("run1"), 1)
    assert outcome.response == an_answer(slow.task, 0.0)


async def test_what_is_withdrawn_is_gone_wherever_it_was(queue: CohortQueue, operations: QueueOperations) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    [answered, buried, held] = await queue.take("w1", count=3)
    await answer(queue, answered)
    await queue.bury(buried, "no")
    await queue.submit(a_task("other", "run2"))
    assert await queue.withdraw("run1", ["c0", "c3", "never"]) == 2
    assert await counts(operations) == (1, 1, 0, 1)
    assert await queue.withdraw("run1") == 2
    assert await queue.runs() == ["run2"]
    assert not await answer(queue, held)
    assert [delivery.task.run for delivery in await queue.take("w2", count=9, lease_ms=0)] == ["run2"]
    assert await queue.submit(a_task("c0")), "it may be submitted anew"


async def test_a_worker_cannot_settle_the_task_that_was_submitted_again(queue: CohortQueue) -> None:
    await queue.submit(a_task())
    old = await taken(queue)
    await queue.withdraw("run1")
    await queue.submit(a_task())
    assert not await answer(queue, old)
    assert await answer(queue, await taken(queue))


async def test_missing_names_what_redis_lost_and_nothing_else(queue: CohortQueue, connection: Redis) -> None:
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    [answered, buried, held] = await queue.take("w1", count=3)
    await answer(queue, answered)
    await queue.bury(buried, "no")
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


async def test_a_task_deleted_by_hand_while_a_worker_held_it_does_not_stop_the_others(
    queue: CohortQueue, connection: Redis
) -> None:
    await queue.submit(a_task("c0"))
    held = await taken(queue)
    await connection.xdel(COHORTS, held.entry_id)
    await queue.submit(a_task("c1"))
    assert (await taken(queue, "w2", lease_ms=0)).task == a_task("c1")
    pending = await connection.xpending(COHORTS, GROUP)
    assert pending["pending"] == 1


async def test_a_worker_leaves_the_group_only_with_empty_hands(
    queue: CohortQueue, operations: QueueOperations, connection: Redis
) -> None:
    await queue.submit(a_task())
    delivery = await taken(queue)
    assert (await operations.status()).workers == 1
    await queue.leave("w1")
    assert [each["name"] for each in await connection.xinfo_consumers(COHORTS, GROUP)] == ["w1"]
    await answer(queue, delivery)
    await queue.leave("w1")
    await queue.leave("never-came")
    assert await connection.xinfo_consumers(COHORTS, GROUP) == []


@both_protocols
async def test_status_tells_the_runs_apart(queue: CohortQueue, operations: QueueOperations) -> None:
    for name in ("a", "b", "c"):
        await queue.submit(a_task(name))
    await queue.submit(a_task("d", "run2"))
    [first, second] = await queue.take("w1", count=2)
    await answer(queue, first)
    status = await operations.status()
    assert status.runs["run1"].oldest_s is not None
    oldest = status.runs["run1"].oldest_s
    assert 0 <= oldest < 60
    assert status.runs["run1"] == RunStatus(1, 1, 1, 0, oldest)
    assert status.runs["run2"].waiting == 1
    await queue.bury(second, "no")
    await queue.withdraw("run2")
    status = await operations.status()
    assert set(status.runs) == {"run1"}
    assert status == QueueStatus(1, 0, 1, status.oldest_s, 1, status.runs)


@both_protocols
async def test_dead_letters_are_put_back_by_name_by_run_or_all_and_answered_as_ever(
    queue: CohortQueue, operations: QueueOperations
) -> None:
    for number, run in enumerate(["run1", "run1", "run1", "run2"]):
        await queue.submit(a_task(f"c{number}", run))
    for delivery in await queue.take("w1", count=4):
        await queue.bury(delivery, "the teacher was asleep")
    [first, *_] = letters = await operations.dead()
    assert [letter.cohort_id for letter in letters] == ["c0", "c1", "c2", "c3"]
    assert [letter.cohort_id for letter in await operations.dead("run1", 2)] == ["c0", "c1"]
    assert await operations.replay([first.entry_id]) == 1
    with pytest.raises(LookupError, match=f"no dead letter {first.entry_id}"):
        await operations.replay([first.entry_id])
    assert await operations.replay(run="run2") == 1
    assert await operations.replay() == 2
    assert await counts(operations) == (4, 0, 0, 0)
    assert (await operations.status()).runs["run1"].dead == 0
    for delivery in await queue.take("w1", count=4):
        assert delivery.attempt == 1
        assert await answer(queue, delivery)
    outcomes = await collect(queue.outcomes("run1"), 3)
    assert {outcome.cohort_id for outcome in outcomes if outcome.response} == {"c0", "c1", "c2"}


async def test_replay_respects_the_bound_and_passes_over_what_has_gone_on(
    queue: CohortQueue, operations: QueueOperations, connection: Redis
) -> None:
    for number in range(3):
        await queue.submit(a_task(f"c{number}"))
    for delivery in await queue.take("w1", count=3):
        await queue.bury(delivery, "no")
    await queue.withdraw("run1", ["c0"])
    await queue.submit(a_task("c0"))
    await connection.xadd(COHORTS, {"x": "y"})
    assert len(await queue.take("w1", count=2)) == 1
    assert await operations.replay(bound=2) == 1, "c0 is in work already, c1 fills the bound"
    assert await operations.replay() == 1
    assert [letter.cohort_id for letter in await operations.dead()] == ["c0", ""]


async def test_purging_takes_what_it_says_and_no_more(queue: CohortQueue, operations: QueueOperations) -> None:
    for name, run in (("a", "run1"), ("b", "run1"), ("c", "run2"), ("d", "run2")):
        await queue.submit(a_task(name, run))
    [first, _, third] = await queue.take("w1", count=3)
    await queue.bury(first, "no")
    await queue.bury(third, "no")
    assert await operations.purge_dead("run2") == 1
    assert await counts(operations) == (1, 1, 0, 1)
    assert await operations.purge_run("run1") == 2
    assert await counts(operations) == (1, 0, 0, 0)
    assert await operations.purge_dead() == 0
    assert set((await operations.status()).runs) == {"run2"}


async def test_namespaces_do_not_meet(connection: Redis) -> None:
    one = CohortQueue(connection, namespace="one")
    await one.submit(a_task())
    assert (await QueueOperations(connection, namespace="other").status()).waiting == 0
    assert (await QueueOperations(connection, namespace="one").status()).waiting == 1


@pytest.mark.parametrize("name", ["bound", "run_bound", "max_deliveries"])
def test_a_bound_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        CohortQueue(Redis(), **{name: 0})  # type: ignore[arg-type]


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
