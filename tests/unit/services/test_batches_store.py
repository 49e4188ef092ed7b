"""The batch store on a real Redis: nothing lost, nothing doubled, nothing left behind."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from preceptor_client.contract import (
    Batch,
    BatchRequest,
    BatchResult,
    BatchState,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Problem,
)
from preceptor_services.batches import store as store_module
from preceptor_services.batches.store import (
    BatchesFullError,
    BatchReusedError,
    BatchStore,
    Item,
    Numbered,
    UnknownBatchError,
)

LEASE_MS = 60_000


def batch(count: int, name: str | None = None, text: str = "good") -> BatchRequest:
    cohorts = (Cohort(id=f"c{place}", prefix="p", candidates=(Candidate(id="a", text=text),)) for place in range(count))
    return BatchRequest(id=name, items=tuple(JudgeRequest(cohort=cohort, axes=("safety",)) for cohort in cohorts))


def result_of(item: Item) -> BatchResult:
    cohort_id = JudgeRequest.model_validate_json(item.request).cohort.id
    return BatchResult(
        index=item.index, response=JudgeResponse(cohort_id=cohort_id, verdicts=(), axes={}, elapsed_s=0.0)
    )


def problem_of(item: Item, detail: str = "no") -> BatchResult:
    return BatchResult(index=item.index, problem=Problem(title="Unprocessable", status=422, detail=detail))


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch) -> BatchStore:
    monkeypatch.setattr(store_module, "_BLOCK_MS", 100)
    return BatchStore(redis, namespace=namespace, ttl_s=3600, max_waiting=100)


async def drained(store: BatchStore, owner: str, name: str, after: int = 0) -> list[Numbered]:
    async with asyncio.timeout(10):
        return [each async for each in store.follow(owner, name, after)]


async def test_a_batch_is_worked_off_in_its_order(store: BatchStore) -> None:
    made = await store.submit("me", batch(5, "b"))
    assert (made.id, made.state, made.total, made.done) == ("b", BatchState.RUNNING, 5, 0)
    items = await store.take(3, LEASE_MS)
    items += await store.take(3, LEASE_MS)
    assert [item.index for item in items] == [0, 1, 2, 3, 4]
    assert await store.waiting() == 5
    for item in items:
        assert await store.settle(item, problem_of(item) if item.index == 2 else result_of(item))
    found = await store.status("me", "b")
    assert (found.state, found.done, found.failed) == (BatchState.DONE, 5, 1)
    assert await store.waiting() == 0


async def test_batches_take_turns(store: BatchStore) -> None:
    await store.submit("me", batch(50, "large"))
    await store.submit("you", batch(2, "small"))
    taken = [item.ref for item in await store.take(6, LEASE_MS)]
    assert taken == ["me/large", "you/small", "me/large", "you/small", "me/large", "me/large"]


async def test_the_same_submission_again_finds_the_batch(store: BatchStore) -> None:
    await store.submit("me", batch(3, "b"))
    [item] = await store.take(1, LEASE_MS)
    await store.settle(item, result_of(item))
    assert (await store.submit("me", batch(3, "b"))).done == 1
    with pytest.raises(BatchReusedError, match="'b' is there with other items"):
        await store.submit("me", batch(3, "b", text="bad"))
    assert [item.index for item in await store.take(9, LEASE_MS)] == [1, 2]


async def test_submissions_at_once_make_one_batch(store: BatchStore) -> None:
    made = await asyncio.gather(*(store.submit("me", batch(30, "b")) for _ in range(5)))
    assert {each.total for each in made} == {30}
    assert await store.waiting() == 30
    assert len(await store.take(100, LEASE_MS)) == 30


async def test_a_batch_is_its_owners_alone(store: BatchStore) -> None:
    await store.submit("me", batch(1, "b"))
    for call in (store.status, store.cancel):
        with pytest.raises(UnknownBatchError, match="no batch 'b'"):
            await call("you", "b")
    assert (await store.submit("you", batch(2, "b"))).total == 2
    assert (await store.status("me", "b")).total == 1


async def test_an_item_gets_one_result(store: BatchStore) -> None:
    await store.submit("me", batch(2, "b"))
    first, second = await store.take(2, LEASE_MS)
    assert await store.settle(first, result_of(first))
    assert not await store.settle(first, problem_of(first))
    assert (await store.status("me", "b")).done == 1
    await store.settle(second, result_of(second))
    [one, two] = await drained(store, "me", "b")
    assert (one.number, two.number) == (1, 2)
    assert BatchResult.model_validate_json(one.result) == result_of(first)


async def test_an_item_comes_back_when_its_lease_runs_out_and_not_before(store: BatchStore) -> None:
    await store.submit("me", batch(1, "b"))
    [held] = await store.take(1, LEASE_MS)
    assert await store.take(1, LEASE_MS) == []
    assert await store.renew([held], 1) == []
    assert await store.take(1, LEASE_MS) == [replace(held, attempt=2)]


async def test_what_is_given_back_is_taken_at_once(store: BatchStore) -> None:
    await store.submit("me", batch(2, "b"))
    held = await store.take(2, LEASE_MS)
    waiting = asyncio.create_task(store.take(9, LEASE_MS))
    await store.release(held)
    assert {item.index for item in await waiting} == {0, 1}


async def test_attempts_are_counted_and_the_last_error_is_kept(store: BatchStore) -> None:
    await store.submit("me", batch(1, "b"))
    seen = []
    for error in ("", "killed", "", "lost"):
        [item] = await store.take(1, LEASE_MS)
        seen.append((item.attempt, item.last_error))
        await store.release([item], error)
        await store.release([item], error)  # the answer to the first was lost
    assert seen == [(1, ""), (1, ""), (2, "killed"), (2, "killed")]
    [item] = await store.take(1, LEASE_MS)
    assert (item.attempt, item.last_error) == (3, "lost")


async def test_an_item_of_a_batch_that_ended_leaves_nothing_behind(
    store: BatchStore, redis: Redis, namespace: str
) -> None:
    await store.submit("me", batch(2, "b"))
    items = await store.take(2, LEASE_MS)
    await store.settle(items[0], result_of(items[0]))
    await store.cancel("me", "b")
    for error in ("", "lost"):
        await store.release(items, error)
    assert {key async for key in redis.scan_iter(match=f"{namespace}:batch:*") if await redis.ttl(key) < 0} == set()
    assert not await redis.exists(f"{namespace}:batches:leases")


async def test_a_new_batch_wakes_whoever_waits(store: BatchStore, redis: Redis) -> None:
    waiting = asyncio.create_task(store.take(9, LEASE_MS))
    while not (await redis.info("clients"))["blocked_clients"]:  # noqa: ASYNC110  (Redis says so to nobody)
        await asyncio.sleep(0)
    await store.submit("me", batch(1, "b"))
    assert len(await waiting) == 1


async def test_a_cancelled_batch_brings_nothing_more(store: BatchStore, redis: Redis) -> None:
    await store.submit("me", batch(5, "b"))
    first, second = await store.take(2, LEASE_MS)
    await store.settle(first, result_of(first))
    found = await store.cancel("me", "b")
    assert (found.state, found.done) == (BatchState.CANCELLED, 1)
    assert await store.renew([second], LEASE_MS) == [second]
    assert not await store.settle(second, result_of(second))
    assert await store.take(9, LEASE_MS) == []
    assert len(await drained(store, "me", "b")) == 1
    assert await store.cancel("me", "b") == found
    assert await store.waiting() == 0


async def test_a_batch_that_is_done_stays_done(store: BatchStore) -> None:
    await store.submit("me", batch(1, "b"))
    [item] = await store.take(1, LEASE_MS)
    await store.settle(item, result_of(item))
    assert (await store.cancel("me", "b")).state is BatchState.DONE


async def test_a_result_that_comes_between_a_look_at_the_results_and_one_at_the_batch_is_not_missed(
    redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(BatchStore):
        async def status(self, owner: str, batch_id: str) -> Batch:
            for item in await self.take(9, LEASE_MS):
                await self.settle(item, result_of(item))
            return await super().status(owner, batch_id)

    monkeypatch.setattr(store_module, "_BLOCK_MS", 100)
    store = BatchStore(redis, namespace=namespace, ttl_s=3600, max_waiting=100)
    await store.submit("me", batch(2, "b"))
    store.__class__ = Unlucky
    assert [each.number for each in await drained(store, "me", "b")] == [1, 2]


async def test_results_are_followed_from_any_number_on(store: BatchStore) -> None:
    await store.submit("me", batch(90, "b"))
    items = await store.take(90, LEASE_MS)
    following = asyncio.create_task(drained(store, "me", "b", after=10))
    for item in items:
        await store.settle(item, result_of(item))
    assert [each.number for each in await following] == [*range(11, 91)]
    assert [each.number async for each in store.results_after("me", "b", 88)] == [89, 90]
    assert await drained(store, "me", "b", after=90) == []
    assert await drained(store, "me", "b", after=5_000) == []


async def test_no_more_items_wait_than_allowed(store: BatchStore) -> None:
    await store.submit("me", batch(60, "first"))
    with pytest.raises(BatchesFullError, match="100 items"):
        await store.submit("me", batch(60, "second"))
    assert (await store.submit("me", batch(60, "first"))).total == 60
    await store.cancel("me", "first")
    await store.submit("me", batch(60, "second"))


async def test_every_key_of_a_batch_expires_and_what_is_shared_stays_bounded(
    store: BatchStore, redis: Redis, namespace: str
) -> None:
    before = datetime.now(UTC)
    made = await store.submit("me", batch(3, "b"))
    assert timedelta(seconds=3590) < made.expires_at - before < timedelta(seconds=3610)
    [item] = await store.take(1, LEASE_MS)
    await store.settle(item, result_of(item))
    keys = [key async for key in redis.scan_iter(match=f"{namespace}:batch:*")]
    assert sorted(keys) == [f"{namespace}:batch:me/b{part}" for part in ("", "/items", "/results")]
    assert {3590 < await redis.ttl(key) <= 3600 for key in keys} == {True}
    await store.cancel("me", "b")
    shared = {key async for key in redis.scan_iter(match=f"{namespace}:batches:*")}
    assert shared == {f"{namespace}:batches:waiting", f"{namespace}:batches:wake"}
    assert await redis.xlen(f"{namespace}:batches:wake") == 1


@pytest.mark.parametrize("begun", [0, 2, 3])
async def test_an_expired_batch_leaves_nothing_waiting(
    store: BatchStore, redis: Redis, namespace: str, begun: int
) -> None:
    await store.submit("me", batch(3, "b"))
    held = await store.take(begun, LEASE_MS) if begun else []
    await redis.delete(*[key async for key in redis.scan_iter(match=f"{namespace}:batch:*")])  # as expiry does
    assert await store.renew(held, LEASE_MS) == held
    assert await store.take(9, LEASE_MS) == []
    assert await store.waiting() == 0
    with pytest.raises(UnknownBatchError):
        await store.status("me", "b")
    with pytest.raises(UnknownBatchError):
        await drained(store, "me", "b")


async def test_a_batch_is_kept_apart_from_those_whose_ids_look_like_its_parts(store: BatchStore) -> None:
    await store.submit("me", batch(2, "a"))
    with pytest.raises(UnknownBatchError):
        await store.status("me", "a:items")
    names = ["b:results", "b:items", "b:attempts", "b"]
    await store.cancel("me", "a")
    for name in names:
        await store.submit("me", batch(2, name))
    for item in await store.take(8, LEASE_MS):
        assert await store.settle(item, result_of(item))
    for name in names:
        assert (await store.status("me", name)).state is BatchState.DONE
        assert [each.number async for each in store.follow("me", name, 0)] == [1, 2]


async def test_a_line_separator_in_a_result_stays_within_its_line(store: BatchStore) -> None:
    await store.submit("me", batch(1, "b"))
    [item] = await store.take(1, LEASE_MS)
    await store.settle(item, problem_of(item, "a\u2028b\x85c"))
    [only] = await drained(store, "me", "b")
    assert len(only.result.splitlines()) == 1
    assert BatchResult.model_validate_json(only.result).problem == problem_of(item, "a\u2028b\x85c").problem


async def test_replicas_that_die_and_take_over_settle_every_item_once(store: BatchStore) -> None:
    """Three replicas take, forget, give back, settle twice: in the end every item has exactly one result."""
    for name, count in (("a", 30), ("b", 20), ("c", 10)):
        await store.submit("me", batch(count, name))
    lots = random.Random(0)

    async def replica() -> None:
        while await store.waiting():
            for item in await store.take(lots.randint(1, 5), LEASE_MS):
                match lots.randint(0, 4):
                    case 0:
                        await store.renew([item], 1)  # it died: the lease is over at once
                    case 1:
                        await store.release([item])
                    case 2:
                        await asyncio.gather(store.settle(item, result_of(item)), store.settle(item, result_of(item)))
                    case _:
                        await store.settle(item, result_of(item))

    async with asyncio.timeout(30):
        await asyncio.gather(*(replica() for _ in range(3)))
    for name, count in (("a", 30), ("b", 20), ("c", 10)):
        results = [BatchResult.model_validate_json(each.result) for each in await drained(store, "me", name)]
        assert sorted(result.index for result in results) == [*range(count)]
        assert (await store.status("me", name)).state is BatchState.DONE
