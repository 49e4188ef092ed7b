"""The batch runner in this process, on a real Redis, with a judge that waits on command."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from preceptor_client.contract import (
    BatchRequest,
    BatchResult,
    BatchState,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
)
from preceptor_client.queue import Ride, connect
from preceptor_client.stack import Stack, redis_part
from preceptor_services.batches import runner as runner_module
from preceptor_services.batches import store as store_module
from preceptor_services.batches.runner import BatchRunner
from preceptor_services.batches.store import BatchStore
from preceptor_services.engine import EngineError
from preceptor_services.judging import UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine

LEASE_S = 60.0


def batch(count: int, name: str = "b") -> BatchRequest:
    cohorts = (Cohort(id=f"c{place}", prefix="p", candidates=(Candidate(id="a", text="x"),)) for place in range(count))
    return BatchRequest(id=name, items=tuple(JudgeRequest(cohort=cohort, axes=("safety",)) for cohort in cohorts))


@dataclass
class ScriptedJudge:
    """Answers every cohort, after `gate` and the errors in `faults`; remembers who asked for what."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)
    cancelled: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.gate.set()
        self.ready.set()

    async def __call__(self, request: JudgeRequest, owner: str) -> JudgeResponse:
        name = request.cohort.id
        async with self._arrival:
            self.begun.append(name)
            self.owners.add(owner)
            self._arrival.notify_all()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if errors := self.faults.get(name):
            raise errors.pop(0)
        return JudgeResponse(cohort_id=name, verdicts=(), axes={}, elapsed_s=0.0)

    async def wait_ready(self) -> None:
        await self.ready.wait()

    async def has_begun(self, count: int) -> None:
        async with self._arrival:
            await asyncio.wait_for(self._arrival.wait_for(lambda: len(self.begun) >= count), 10)


@pytest.fixture
def store(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> BatchStore:
    monkeypatch.setattr(store_module, "_BLOCK_MS", 500)
    monkeypatch.setattr(runner_module, "rest_s", lambda attempt: 0.0)
    return BatchStore(redis, namespace=f"test-{uuid.uuid4().hex[:8]}", ttl_s=3600, max_waiting=1000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@asynccontextmanager
async def working(
    store: BatchStore, judge: ScriptedJudge, metrics: Metrics, *, concurrency: int = 4, lease_s: float = LEASE_S
) -> AsyncIterator[Callable[[], object]]:
    """A runner at work; what is yielded cancels it."""
    redis = store._redis
    runner = BatchRunner(
        store,
        Ride(redis),
        Quarantine(redis, namespace="test", lease_s=lease_s),
        judge,
        judge.wait_ready,
        metrics,
        concurrency=concurrency,
        lease_s=lease_s,
        max_deliveries=3,
    )
    running = asyncio.create_task(runner.run())
    try:
        yield running.cancel
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def results(store: BatchStore, name: str = "b") -> list[BatchResult]:
    async with asyncio.timeout(20):
        return [BatchResult.model_validate_json(each.result) async for each in store.follow("me", name, 0)]


async def test_every_item_is_judged_for_its_owner(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    await store.submit("me", batch(10))
    async with working(store, judge, metrics):
        found = await results(store)
        async with asyncio.timeout(10):
            while metrics.batch_items.labels("judged")._value.get() < 10:  # noqa: ASYNC110 - a counter has no event
                await asyncio.sleep(0.01)
    assert [
        (each.index, each.response and each.response.cohort_id) for each in sorted(found, key=lambda r: r.index)
    ] == [(place, f"c{place}") for place in range(10)]
    assert judge.owners == {"me"}


async def test_no_more_items_than_allowed_are_in_hand(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.gate.clear()
    await store.submit("me", batch(6))
    async with working(store, judge, metrics, concurrency=2):
        await judge.has_begun(2)
        assert [item.index for item in await store.take(9, 1)] == [2, 3, 4, 5]
        judge.gate.set()
        assert len(await results(store)) == 6


async def test_what_cannot_be_judged_is_a_problem_and_the_rest_goes_on(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge(faults={"c1": [UnjudgeableError("axes: no rubric")], "c2": [KeyError("a bug")]})
    await store.submit("me", batch(4))
    async with working(store, judge, metrics):
        found = {each.index: each.problem for each in await results(store)}
    assert {index: problem and (problem.status, problem.detail) for index, problem in found.items()} == {
        0: None,
        1: (422, "axes: no rubric"),
        2: (500, "internal error KeyError"),
        3: None,
    }
    assert (await store.status("me", "b")).failed == 2


async def test_an_item_of_another_version_is_a_problem(store: BatchStore, metrics: Metrics, redis: Redis) -> None:
    await store.submit("me", batch(1))
    [key] = [key async for key in redis.scan_iter(match="*/items")]
    await redis.hset(key, "0", '{"from": "the future"}')
    async with working(store, ScriptedJudge(), metrics):
        [result] = await results(store)
    assert result.problem is not None
    assert "from: there is no such key" in (result.problem.detail or "")


async def test_nothing_is_taken_while_the_engine_is_away(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.ready.clear()
    await store.submit("me", batch(3))
    async with working(store, judge, metrics):
        assert len(await store.take(2, 1)) == 2
        assert judge.begun == []
        judge.ready.set()
        assert len(await results(store)) == 3


async def test_an_item_that_lost_its_engine_is_asked_again(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge(faults={"c0": [EngineError("unreachable", "gone")]})
    await store.submit("me", batch(1))
    async with working(store, judge, metrics):
        [result] = await results(store)
    assert result.response is not None
    assert judge.begun == ["c0", "c0"]


async def test_an_item_that_loses_its_engine_each_time_gets_a_problem_that_says_so(
    store: BatchStore, metrics: Metrics
) -> None:
    judge = ScriptedJudge(faults={"c1": [EngineError("unreachable", f"killed {time}") for time in range(9)]})
    await store.submit("me", batch(3))
    async with working(store, judge, metrics):
        found = {each.index: each.problem for each in await results(store)}
    assert [index for index, problem in found.items() if problem is not None] == [1]
    assert found[1] is not None
    assert (found[1].status, found[1].detail) == (500, "begun 3 times and never answered; the last time: killed 2")
    assert judge.begun.count("c1") == 3


async def test_an_item_that_ends_whoever_judges_it_gets_a_problem(store: BatchStore, metrics: Metrics) -> None:
    await store.submit("me", batch(1))
    for _ in range(3):
        assert len(await store.take(1, 1)) == 1  # by a replica that dies of it
        await asyncio.sleep(0.002)
    judge = ScriptedJudge()
    async with working(store, judge, metrics):
        [result] = await results(store)
    assert result.problem is not None
    assert "begun 3 times" in (result.problem.detail or "")
    assert judge.begun == []


async def test_what_is_given_back_was_no_attempt(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.gate.clear()
    await store.submit("me", batch(1))
    for time in range(5):
        async with working(store, judge, metrics):
            await judge.has_begun(time + 1)
    [item] = await store.take(1, 1000)
    assert item.attempt == 1


async def test_a_runner_that_is_stopped_gives_back_what_it_holds(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.gate.clear()
    await store.submit("me", batch(5))
    async with working(store, judge, metrics):
        await judge.has_begun(4)
    assert judge.cancelled == 4
    judge.gate.set()
    async with working(store, judge, metrics):
        assert sorted(each.index for each in await results(store)) == [0, 1, 2, 3, 4]


async def test_an_item_is_held_for_as_long_as_it_takes(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.gate.clear()
    await store.submit("me", batch(1))
    async with working(store, judge, metrics, lease_s=0.25):
        await judge.has_begun(1)
        assert await store.take(1, 1) == [], "half a second later its lease is still held"
        judge.gate.set()
        await results(store)
    assert judge.begun == ["c0"]


async def test_what_a_dead_replica_held_is_taken_over(store: BatchStore, metrics: Metrics) -> None:
    await store.submit("me", batch(4))
    assert len(await store.take(2, 300)) == 2  # by a replica that never comes back
    judge = ScriptedJudge()
    async with working(store, judge, metrics):
        assert sorted(each.index for each in await results(store)) == [0, 1, 2, 3]


async def test_cancelling_a_batch_stops_what_is_in_hand(store: BatchStore, metrics: Metrics) -> None:
    judge = ScriptedJudge()
    judge.gate.clear()
    await store.submit("me", batch(5))
    async with working(store, judge, metrics, concurrency=2, lease_s=0.3):
        await judge.has_begun(2)
        await store.cancel("me", "b")
        await store.submit("me", batch(1, "next"))
        await judge.has_begun(3)  # there was room for it: the two were given up
        judge.gate.set()
        assert len(await results(store, "next")) == 1
    assert judge.cancelled == 2
    assert (await store.status("me", "b")).state is BatchState.CANCELLED
    assert await results(store) == []


async def test_two_replicas_share_a_batch(store: BatchStore, metrics: Metrics) -> None:
    first, second = ScriptedJudge(), ScriptedJudge()
    for judge in (first, second):
        judge.gate.clear()
    await store.submit("me", batch(20))
    async with working(store, first, metrics), working(store, second, metrics):
        await first.has_begun(4)
        await second.has_begun(4)
        first.gate.set()
        second.gate.set()
        found = await results(store)
    assert sorted(each.index for each in found) == [*range(20)]
    assert len(first.begun) + len(second.begun) == 20


async def test_it_rides_through_a_redis_that_dies_and_comes_back(tmp_path: Path, metrics: Metrics) -> None:
    with Stack() as stack:
        part = stack.start(redis_part(tmp_path))
        assert part.part.url is not None
        port = int(part.part.url.split(":")[-1].split("/")[0])
        async with connect(part.part.url) as redis:
            store = BatchStore(redis, namespace="test", ttl_s=3600, max_waiting=100)
            judge = ScriptedJudge()
            judge.gate.clear()
            await store.submit("me", batch(6))
            async with working(store, judge, metrics):
                await judge.has_begun(4)
                await asyncio.to_thread(stack.stop_part, part)
                judge.gate.set()
                await asyncio.to_thread(stack.start, redis_part(tmp_path, port=port))
                assert sorted(each.index for each in await results(store)) == [0, 1, 2, 3, 4, 5]
