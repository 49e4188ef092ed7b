"""Workers of the cohort queue, on a real Redis: who holds a task, for how long, and what becomes of it afterwards."""

from __future__ import annotations

from redis.asyncio import Redis

from preceptor_client.contract import JudgeTask
from preceptor_client.queue import GROUP, CohortQueue, QueueOperations
from queued import COHORTS, a_task, an_answer, answer, both_protocols, collect, counts, one_of_each, taken


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
    held = await one_of_each(queue)
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
