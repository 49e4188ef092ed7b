"""The worker in this process, on a real Redis, with a teacher that fails on command."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from preceptor_client.contract import Candidate, Cohort, JudgeRequest, JudgeResponse, JudgeTask, Status
from preceptor_client.queue import CohortQueue, connect
from preceptor_client.stack import Stack, redis_part
from preceptor_services.assembly import Engines
from preceptor_services.engine import Engine
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings
from preceptor_services.worker import Worker

OpenEngine = Callable[..., Awaitable[Engine]]
RUN = "run-1"


def task(name: str, *texts: str, axes: tuple[str, ...] = ("safety",)) -> JudgeTask:
    candidates = tuple(Candidate(id=f"c{index}", text=text) for index, text in enumerate(texts or ("good", "bad")))
    cohort = Cohort(id=name, prefix="p", candidates=candidates)
    return JudgeTask(run=RUN, request=JudgeRequest(cohort=cohort, axes=axes))


async def answered(queue: CohortQueue, count: int) -> dict[str, JudgeResponse]:
    """The first `count` responses, by cohort."""
    found: dict[str, JudgeResponse] = {}
    async with asyncio.timeout(20):
        async for stored in queue.responses(RUN):
            found[stored.response.cohort_id] = stored.response
            if len(found) == count:
                break
    return found


@pytest.fixture
def queue(redis: Redis) -> CohortQueue:
    return CohortQueue(redis, namespace=f"test-{uuid.uuid4().hex[:8]}")


@asynccontextmanager
async def working(
    queue: CohortQueue, engine: Engine, metrics: Metrics, *, concurrency: int = 4, rubrics: str = "nano"
) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """A worker at work; what is yielded stops it and waits for its end."""
    judge = Judge(engine, load_rubrics(rubrics), JudgingSettings(), metrics)
    worker = Worker(queue, judge, Engines([engine], 1), metrics, concurrency=concurrency, deadline_s=30)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    async def end() -> None:
        stop.set()
        await asyncio.wait_for(running, 20)

    try:
        yield end
    finally:
        await end()


async def test_every_cohort_is_judged_and_settled(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server())
    for index in range(10):
        await queue.submit(task(f"cohort-{index}"))
    async with working(queue, engine, metrics):
        responses = await answered(queue, 10)
    assert {tuple(v.score for v in response.verdicts) for response in responses.values()} == {(1.0, 0.0)}
    status = await queue.status()
    assert (status.waiting, status.in_flight, status.verdicts) == (0, 0, {RUN: 10})
    assert b'preceptor_worker_cohorts_total{result="settled"} 10.0' in metrics.exposition()


async def test_no_more_cohorts_than_allowed_are_in_hand(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    for index in range(6):
        await queue.submit(task(f"cohort-{index}"))
    async with working(queue, engine, metrics, concurrency=2):
        await server.arrived(2)
        status = await queue.status()
        assert (status.waiting, status.in_flight) == (4, 2)
        server.hold.set()
        await answered(queue, 6)


async def test_a_cohort_that_no_teacher_could_judge_is_buried_with_the_reason(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server())
    await queue.submit(task("odd", axes=("style",)))
    await queue.submit(task("plain"))
    async with working(queue, engine, metrics, concurrency=1):
        assert set(await answered(queue, 1)) == {"plain"}
    assert (await queue.status()).dead == 1


async def test_a_lost_call_is_a_failed_verdict_and_the_rest_waits_for_the_engine(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server(), retries=0)
    server.faults.append(httpx.ConnectError("refused"))
    async with working(queue, engine, metrics, concurrency=1):
        await queue.submit(task("unlucky"))
        responses = await answered(queue, 1)
        assert {v.status for v in responses["unlucky"].verdicts} == {Status.FAILED}
        await queue.submit(task("patient"))
        assert not engine.ready
        assert (await queue.status()).waiting == 1
        await engine.prepare([])
        responses = await answered(queue, 2)
        assert {v.status for v in responses["patient"].verdicts} == {Status.OK}


async def test_told_to_stop_it_finishes_what_is_in_hand_and_takes_nothing_more(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    for index in range(3):
        await queue.submit(task(f"cohort-{index}"))
    async with working(queue, engine, metrics, concurrency=1) as end:
        await server.arrived(1)
        ending = asyncio.create_task(end())
        await asyncio.sleep(0)
        server.hold.set()
        await ending
    status = await queue.status()
    assert (status.waiting, status.in_flight, status.verdicts) == (2, 0, {RUN: 1})


async def test_a_worker_told_to_stop_before_the_engine_is_ready_ends(
    queue: CohortQueue, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server(faults=[httpx.ConnectError("refused")]), retries=0)
    await Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics).judge(task("x").request)
    assert not engine.ready
    async with working(queue, engine, metrics):
        pass
    assert len(server.bodies) == 1


async def test_it_rides_through_a_redis_that_dies_and_comes_back(
    tmp_path: Path, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    with Stack() as stack:
        first = stack.start(redis_part(tmp_path))
        assert first.part.url is not None
        port = int(first.part.url.split(":")[-1].split("/")[0])
        async with connect(first.part.url, patience_s=1.0) as redis:
            queue = CohortQueue(redis)
            server.hold = asyncio.Event()
            await queue.submit(task("before"))
            async with working(queue, engine, metrics):
                await server.arrived(1)
                await asyncio.to_thread(stack.stop_part, first)
                server.hold.set()
                await asyncio.to_thread(stack.start, redis_part(tmp_path, port=port))
                await queue.submit(task("after"))
                assert set(await answered(queue, 2)) == {"before", "after"}
            status = await queue.status()
            assert (status.waiting, status.in_flight, status.dead) == (0, 0, 0)
