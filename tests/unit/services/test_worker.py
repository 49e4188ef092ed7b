"""The worker in this process, on a real Redis, with a teacher that fails on command."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from preceptor_client.contract import Candidate, Cohort, JudgeRequest, JudgeResponse, JudgeTask, Status
from preceptor_client.queue import CohortQueue, QueueMisfit, QueueOperations, QueueStatus, connect
from preceptor_client.queue import queue as queue_module
from preceptor_client.stack import Stack, redis_part
from preceptor_services import quarantine as quarantine_module
from preceptor_services import worker as worker_module
from preceptor_services.assembly import Engines
from preceptor_services.brief_redis import brief_redis
from preceptor_services.engine import Engine, Generation
from preceptor_services.engine import replica as replica_module
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings, ServiceSettings
from preceptor_services.worker import Worker

OpenEngine = Callable[..., Awaitable[Engine]]
RUN = "run-1"
PROBE = Generation("completion", max_tokens=1, labels=("safe", "unsafe"))


@pytest.fixture(autouse=True)
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "rest_s", lambda attempt: 0.0)


def task(name: str, *texts: str, axes: tuple[str, ...] = ("safety",)) -> JudgeTask:
    candidates = tuple(Candidate(id=f"c{index}", text=text) for index, text in enumerate(texts or ("good", "bad")))
    cohort = Cohort(id=name, prefix="p", candidates=candidates)
    return JudgeTask(run=RUN, request=JudgeRequest(cohort=cohort, axes=axes))


class Shared:
    """A queue, and what an operator sees of it."""

    def __init__(self, redis: Redis, namespace: str, **options: Any) -> None:
        self.redis = redis
        self.namespace = namespace
        self.queue = CohortQueue(redis, namespace=namespace, **options)
        self.operations = QueueOperations(redis, namespace=namespace)

    async def submit(self, *tasks: JudgeTask) -> None:
        for each in tasks:
            await self.queue.submit(each)

    async def answered(self, count: int) -> dict[str, JudgeResponse]:
        """The first `count` responses, by cohort."""
        found: dict[str, JudgeResponse] = {}
        async with asyncio.timeout(20):
            async for outcome in self.queue.outcomes(RUN):
                assert outcome.dead is None
                assert outcome.cohort_id not in found, "one outcome for each"
                if outcome.response is not None:
                    found[outcome.cohort_id] = outcome.response
                if len(found) == count:
                    break
        return found

    async def buried(self) -> str:
        """The reason in the first outcome that is none."""
        async with asyncio.timeout(20):
            async for outcome in self.queue.outcomes(RUN):
                if outcome.dead is not None:
                    return outcome.dead
        raise AssertionError("outcomes never end")

    async def status(self) -> QueueStatus:
        return await self.operations.status()


@pytest.fixture
async def shared(redis_url: str, redis: Redis) -> AsyncIterator[Shared]:
    async with connect(redis_url) as connection:
        yield Shared(connection, f"test-{uuid.uuid4().hex[:8]}", max_deliveries=4)


@asynccontextmanager
async def working(
    shared: Shared,
    engine: Engine,
    metrics: Metrics,
    *,
    concurrency: int = 4,
    rubrics: str = "nano",
    lease_s: float = 60.0,
    grace_s: float = 20.0,
) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """A worker at work; what is yielded stops it and waits for its end."""
    judge = Judge(engine, load_rubrics(rubrics), JudgingSettings(), metrics)
    worker = Worker(
        shared.queue,
        judge,
        Engines([engine], 1),
        Quarantine(shared.redis, namespace=shared.namespace, lease_s=lease_s),
        metrics,
        concurrency=concurrency,
        lease_s=lease_s,
        grace_s=grace_s,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    async def end() -> None:
        stop.set()
        await asyncio.wait_for(running, 30)

    try:
        yield end
    finally:
        await end()


@asynccontextmanager
async def watched(engine: Engine) -> AsyncIterator[None]:
    """The engine comes back by itself."""
    watch = asyncio.create_task(engine.watch([PROBE]))
    for _ in range(3):  # until it has begun
        await asyncio.sleep(0)
    await until(lambda: engine._replicas[0].circuit == "closed")
    try:
        yield
    finally:
        watch.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for is a state that has no event
            await asyncio.sleep(0.01)


def counted(metrics: Metrics, result: str) -> float:
    return float(metrics.cohorts.labels(result)._value.get())


async def test_every_cohort_is_judged_and_settled(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server())
    await shared.submit(*(task(f"cohort-{index}") for index in range(10)))
    async with working(shared, engine, metrics):
        responses = await shared.answered(10)
    assert {tuple(v.score for v in response.verdicts) for response in responses.values()} == {(1.0, 0.0)}
    status = await shared.status()
    assert (status.waiting, status.in_flight, status.runs[RUN].answered, status.workers) == (0, 0, 10, 0)
    assert b'preceptor_worker_cohorts_total{result="settled"} 10.0' in metrics.exposition()


async def test_no_more_cohorts_than_allowed_are_in_hand(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(*(task(f"cohort-{index}") for index in range(6)))
    async with working(shared, engine, metrics, concurrency=2):
        await server.arrived(2)
        status = await shared.status()
        assert (status.waiting, status.in_flight) == (4, 2)
        server.hold.set()
        await shared.answered(6)


async def test_two_workers_share_the_queue_and_one_may_come_later(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    servers = [faulty_server(hold=asyncio.Event()) for _ in range(2)]
    engines = [await open_engine(server) for server in servers]
    await shared.submit(*(task(f"cohort-{index}") for index in range(6)))
    async with working(shared, engines[0], metrics, concurrency=2):
        await servers[0].arrived(2)
        async with working(shared, engines[1], metrics, concurrency=2):
            await servers[1].arrived(2)
            assert (await shared.status()).in_flight == 4
            for server in servers:
                server.hold.set()
            await shared.answered(6)
    assert counted(metrics, "settled") == 6


async def test_a_cohort_that_no_teacher_could_judge_is_buried_with_the_reason(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server())
    await shared.submit(task("odd", axes=("style",)))
    async with working(shared, engine, metrics, concurrency=1):
        assert "style" in await shared.buried()
    assert (await shared.status()).dead == 1
    assert counted(metrics, "buried") == 1


async def test_a_prompt_that_the_teacher_refuses_is_a_failed_verdict_at_once(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server(refused_words=frozenset({"endless"})))
    await shared.submit(task("odd", "good", "endless"))
    async with working(shared, engine, metrics):
        (response,) = (await shared.answered(1)).values()
    assert [verdict.status for verdict in response.verdicts] == [Status.OK, Status.FAILED]
    assert engine.ready


@pytest.mark.parametrize(
    "fault", [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.Response(500), httpx.Response(401)]
)
async def test_what_was_lost_with_the_engine_is_judged_again_when_it_is_back(
    shared: Shared,
    open_engine: OpenEngine,
    faulty_server: type,
    metrics: Metrics,
    fault: httpx.Response | Exception,
) -> None:
    engine = await open_engine(server := faulty_server(), retries=0)
    async with watched(engine), working(shared, engine, metrics, concurrency=2):
        server.faults += [fault] * 3
        await shared.submit(task("unlucky"), task("patient"))
        responses = await shared.answered(2)
    assert {verdict.status for response in responses.values() for verdict in response.verdicts} == {Status.OK}
    assert counted(metrics, "handed_back") >= 1
    assert counted(metrics, "settled") == 2


async def test_nothing_is_taken_while_the_engine_is_away(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server(), retries=0)
    server.faults.append(httpx.ConnectError("refused"))
    async with working(shared, engine, metrics, concurrency=1):
        await shared.submit(task("first"), task("second"))
        await server.arrived(1)
        await until(lambda: counted(metrics, "handed_back") == 1)
        assert (await shared.status()).waiting + (await shared.status()).in_flight == 2
        assert len(server.bodies) == 1
        await engine.prepare([])
        await shared.answered(2)


async def test_a_teacher_that_hangs_is_left_and_its_cohorts_wait(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    server = faulty_server()
    hangs = asyncio.Event()

    async def serve(request: httpx.Request) -> httpx.Response:
        if hangs.is_set():
            if request.url.path == "/v1/models":
                raise httpx.ReadTimeout("no answer")
            await asyncio.get_running_loop().create_future()
        reply: httpx.Response = await server(request)
        return reply

    engine = await open_engine(serve, heartbeat_s=0.01)
    async with watched(engine), working(shared, engine, metrics):
        await shared.submit(task("before"))
        await shared.answered(1)
        hangs.set()
        await shared.submit(task("during"))
        await until(lambda: not engine.ready)
        assert "circuit" in (engine.trouble or "")
        hangs.clear()
        responses = await shared.answered(2)
    assert {verdict.status for response in responses.values() for verdict in response.verdicts} == {Status.OK}


async def test_a_cohort_that_ends_its_engine_each_time_is_buried_and_its_neighbours_are_not(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine breaks as soon as the poison is with it, and takes with it whatever it is at work on."""
    monkeypatch.setattr(quarantine_module, "_TRY_EVERY_S", 0.01)
    monkeypatch.setattr(replica_module, "_FIRST_PAUSE_S", 0.01)
    server = faulty_server()
    at_work: set[asyncio.Task[Any]] = set()

    async def serve(request: httpx.Request) -> httpx.Response:
        if b"poison" in request.content:
            for other in at_work:
                other.cancel()
            raise httpx.ReadError("killed")
        if b"safety" not in request.content:
            reply: httpx.Response = await server(request)
            return reply
        answering = asyncio.create_task(server(request))
        at_work.add(answering)
        try:
            await asyncio.sleep(0.05)
            answered: httpx.Response = await answering
        except asyncio.CancelledError:
            raise httpx.ReadError("killed beside it") from None
        finally:
            at_work.discard(answering)
        return answered

    engine = await open_engine(serve, retries=0)
    names = [f"cohort-{index}" for index in range(12)]
    async with watched(engine), working(shared, engine, metrics), working(shared, engine, metrics):
        await shared.submit(task("poison", "poison"), *map(task, names))
        reason = await shared.buried()
        found: set[str] = set()
        async with asyncio.timeout(20):
            async for outcome in shared.queue.outcomes(RUN):
                if outcome.response is not None:
                    found.add(outcome.cohort_id)
                if len(found) == len(names):
                    break
    assert found == set(names)
    [letter] = await shared.operations.dead()
    assert (letter.cohort_id, letter.attempts, letter.reason) == ("poison", 4, reason)
    assert "killed" in letter.last_error or "lost" in letter.last_error


async def test_told_to_stop_it_finishes_what_is_in_hand_and_takes_nothing_more(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(*(task(f"cohort-{index}") for index in range(3)))
    async with working(shared, engine, metrics, concurrency=1) as end:
        await server.arrived(1)
        ending = asyncio.create_task(end())
        await asyncio.sleep(0)
        server.hold.set()
        await ending
    status = await shared.status()
    assert (status.waiting, status.in_flight, status.runs[RUN].answered) == (2, 0, 1)


async def test_what_it_cannot_finish_in_time_is_handed_back_and_counts_as_no_attempt(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(*(task(f"cohort-{index}") for index in range(3)))
    async with working(shared, engine, metrics, grace_s=0.05) as end:
        await server.arrived(3)
        await end()
    status = await shared.status()
    assert (status.waiting, status.in_flight, status.workers) == (3, 0, 0), "handed back to whoever comes"
    taken = await shared.queue.take("another", count=3)
    assert [delivery.attempt for delivery in taken] == [1, 1, 1]
    assert counted(metrics, "handed_back") == 3


async def test_a_worker_told_to_stop_before_the_engine_is_ready_ends(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server(faults=[httpx.ConnectError("refused")]), retries=0)
    await Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics).judge(task("x").request)
    assert not engine.ready
    async with working(shared, engine, metrics):
        pass
    assert len(server.bodies) == 1


async def test_a_cohort_is_held_for_as_long_as_it_takes(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(task("long"))
    async with working(shared, engine, metrics, lease_s=0.3):
        await server.arrived(1)
        assert await shared.queue.take("another", lease_ms=300) == [], "a second later its lease is still held"
        server.hold.set()
        await shared.answered(1)


async def test_a_worker_that_cannot_hold_its_cohorts_ends(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def renew(*_: object) -> None:
        raise QueueMisfit("this user may not do what the queue needs")

    monkeypatch.setattr(shared.queue, "renew", renew)
    monkeypatch.setattr(queue_module, "BLOCK_MS", 50)
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(task("cohort"))
    with pytest.raises(QueueMisfit, match="may not"):  # noqa: PT012 - it ends by itself
        async with working(shared, engine, metrics, lease_s=0.3, grace_s=0.0):
            await server.arrived(1)
            async with asyncio.timeout(10):
                while (await shared.status()).workers:  # noqa: ASYNC110 - it says so when it leaves
                    await asyncio.sleep(0.01)
    assert (await shared.status()).waiting == 1


async def test_what_a_dead_worker_held_is_taken_over(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    await shared.queue.open_group()
    await shared.submit(task("orphan"))
    assert len(await shared.queue.take("dead")) == 1
    engine = await open_engine(faulty_server())
    async with working(shared, engine, metrics, lease_s=0.2):
        await shared.answered(1)


async def test_what_is_withdrawn_is_given_up(
    shared: Shared, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    await shared.submit(task("unwanted"))
    async with working(shared, engine, metrics, concurrency=1, lease_s=0.2):
        await server.arrived(1)
        await shared.queue.withdraw(RUN)
        await shared.submit(task("wanted"))
        await server.arrived(2)  # there was room for it: the other was given up
        server.hold.set()
        assert set(await shared.answered(1)) == {"wanted"}
    assert counted(metrics, "superseded") == 1


async def test_it_rides_through_a_redis_that_dies_and_comes_back(
    tmp_path: Path, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server())
    with Stack() as stack:
        first = stack.start(redis_part(tmp_path))
        assert first.part.url is not None
        port = int(first.part.url.split(":")[-1].split("/")[0])
        async with connect(first.part.url) as redis:
            shared = Shared(redis, "test")
            server.hold = asyncio.Event()
            await shared.submit(task("before"))
            async with working(shared, engine, metrics):
                await server.arrived(1)
                await asyncio.to_thread(stack.stop_part, first)
                server.hold.set()
                await asyncio.to_thread(stack.start, redis_part(tmp_path, port=port))
                await shared.submit(task("after"))
                assert set(await shared.answered(2)) == {"before", "after"}
            status = await shared.status()
            assert (status.waiting, status.in_flight, status.dead) == (0, 0, 0)


async def test_a_worker_whose_redis_is_away_ends_when_told_to(
    tmp_path: Path, open_engine: OpenEngine, faulty_server: type, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FAREWELL_S", 0.1)
    engine = await open_engine(server := faulty_server())
    server.hold = asyncio.Event()
    with Stack() as stack:
        part = stack.start(redis_part(tmp_path))
        assert part.part.url is not None
        async with connect(part.part.url) as redis:
            shared = Shared(redis, "test")
            await shared.submit(task("left"))
            async with working(shared, engine, metrics, grace_s=0.1) as end:
                await server.arrived(1)
                await asyncio.to_thread(stack.stop_part, part)
                await end()
    assert counted(metrics, "left") == 1


def test_a_second_signal_ends_the_process_there_and_then() -> None:
    program = (
        "import asyncio\n"
        "from preceptor_services.serving import stop_on_signals\n"
        "async def main():\n"
        "    stop = stop_on_signals()\n"
        "    print('listening', flush=True)\n"
        "    await stop.wait()\n"
        "    print('stopping', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in ("listening", "stopping"):
            assert process.stdout.readline().strip() == said
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize(
    "url",
    ["redis://h/0", "rediss://:secret@h:6380/1", "unix:///run/redis.sock", "redis+sentinel://a:26379,b:26379/master/0"],
)
def test_every_redis_of_a_service_may_lie_behind_tls_or_sentinels(url: str) -> None:
    settings = ServiceSettings.model_validate({"queue": {"url": url}, "store": {"url": url}})
    for given in (settings.queue.url, settings.store.url):
        assert given is not None
        connection = brief_redis(given)
        assert connection.connection_pool.connection_kwargs["socket_timeout"] == 0.5
