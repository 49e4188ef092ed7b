"""Looking after the cohort queue, on a real Redis: its status, its dead letters, and clearing it."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from preceptor_client.queue import CohortQueue, QueueOperations, QueueStatus, RunStatus
from queued import COHORTS, a_task, answer, both_protocols, collect, counts


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
