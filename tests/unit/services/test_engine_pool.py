"""The engine over several servers, each a scripted one under a host name of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from preceptor_services.engine import Engine, EngineError, Generation, Prompt
from preceptor_services.engine.replica import Replica
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority
from preceptor_services.settings import EngineSettings
from scripted import Scripted

ONE_TOKEN = Generation("completion", max_tokens=1, labels=("safe", "unsafe"))
HOSTS = ("a", "b", "c")


@dataclass
class Cluster:
    """Scripted servers by host; those in `down` refuse connections."""

    servers: dict[str, Any]
    down: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    """Those that list no models, as one that hangs."""
    roots: dict[str, str] = field(default_factory=dict)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host in self.down:
            raise httpx.ConnectError("refused")
        if request.url.path == "/v1/models" and host in self.silent:
            raise httpx.ReadTimeout("hangs")
        if request.url.path == "/v1/models" and host in self.roots:
            return httpx.Response(200, json={"data": [{"id": "teacher", "root": self.roots[host]}]})
        reply: httpx.Response = await self.servers[host](request)
        return reply

    def asked(self, text: str) -> list[str]:
        """The hosts that were asked about `text`, once for each time."""
        return [
            host
            for host, server in self.servers.items()
            for body in server.bodies
            if any(text in prompt for prompt in body["prompt"])
        ]


@pytest.fixture
def cluster(faulty_server: type) -> Cluster:
    return Cluster({host: faulty_server() for host in HOSTS})


@asynccontextmanager
async def watched(cluster: Cluster, metrics: Metrics, **settings: Any) -> AsyncIterator[Engine]:
    """An engine over the cluster with its watch running, once every server that can be is ready."""
    given = EngineSettings(**{"urls": [f"http://{host}" for host in HOSTS], **settings})
    async with Engine(given, metrics, Scripted(cluster)) as engine:
        watch = asyncio.create_task(engine.watch([ONE_TOKEN]))
        expected = {url for url in given.urls if url.removeprefix("http://") not in cluster.down}
        await until(lambda: expected <= ready_urls(engine))
        yield engine
        watch.cancel()


def replicas(engine: Engine) -> list[Replica]:
    return engine._replicas


def ready_urls(engine: Engine) -> set[str]:
    return {replica.url for replica in replicas(engine) if replica.ready}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for is a state that has no event
            await asyncio.sleep(0.001)


async def ask(engine: Engine, *texts: str, affinity: str = "", **more: Any) -> list[str | None]:
    """The errors of the answers."""
    deadline = asyncio.get_running_loop().time() + 20
    prompts = [Prompt(f"<safety> {text} <answer>") for text in texts]
    answers, _ = await engine.ask(prompts, ONE_TOKEN, deadline=deadline, max_prompts=1, affinity=affinity, **more)
    return [answer.error for answer in answers]


async def test_a_cohort_stays_on_one_replica_and_cohorts_spread(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics) as engine:
        for number in range(30):
            assert await ask(engine, *[f"cohort{number}."] * 4, affinity=f"cohort-{number}") == [None] * 4
    homes = [set(cluster.asked(f"cohort{number}.")) for number in range(30)]
    assert all(len(home) == 1 for home in homes)
    assert set.union(*homes) == set(HOSTS)


async def test_calls_that_belong_to_no_cohort_go_where_least_is_to_be_done(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics) as engine:
        for server in cluster.servers.values():
            server.hold = asyncio.Event()
        asking = asyncio.create_task(ask(engine, *["loose"] * 6))
        await until(lambda: len(cluster.asked("loose")) == 6)
        assert sorted(cluster.asked("loose")) == ["a", "a", "b", "b", "c", "c"]
        for server in cluster.servers.values():
            server.hold.set()
        assert await asking == [None] * 6


async def test_a_lost_replica_leaves_at_once_its_cohorts_move_and_come_back_with_it(
    cluster: Cluster, metrics: Metrics
) -> None:
    cohorts = [f"cohort{number}." for number in range(20)]

    async def homes(engine: Engine) -> dict[str, str]:
        for server in cluster.servers.values():
            server.bodies.clear()
        for cohort in cohorts:
            assert await ask(engine, cohort, affinity=cohort) == [None]
        return {cohort: cluster.asked(cohort)[0] for cohort in cohorts}

    async with watched(cluster, metrics, retries=0) as engine:
        before = await homes(engine)
        cluster.down.add("a")
        without = await homes(engine)
        assert {cohort for cohort in cohorts if without[cohort] != before[cohort]} == {
            cohort for cohort in cohorts if before[cohort] == "a"
        }
        assert engine.ready
        assert "http://a" in (engine.trouble or "")
        exposed = metrics.exposition().decode()
        assert 'preceptor_engine_ready{replica="a"} 0.0' in exposed
        assert 'preceptor_engine_ready{replica="b"} 1.0' in exposed
        assert "preceptor_engine_switches_total 1.0" in exposed, "only the first call met the dead replica"
        cluster.down.clear()
        await until(lambda: engine.trouble is None)
        assert await homes(engine) == before


async def test_without_any_replica_the_engine_is_not_ready_until_one_answers(
    cluster: Cluster, metrics: Metrics
) -> None:
    async with watched(cluster, metrics, retries=0) as engine:
        cluster.down |= set(HOSTS)
        (error,) = await ask(engine, "good", affinity="x")
        assert error is not None
        assert not engine.ready
        cluster.down.remove("c")
        await asyncio.wait_for(engine.wait_ready(), 5)
        assert await ask(engine, "good", affinity="x") == [None]


async def test_a_replica_that_breaks_again_and_again_is_lost_though_it_is_reachable(
    cluster: Cluster, metrics: Metrics
) -> None:
    async with watched(cluster, metrics) as engine:
        cluster.servers["a"].faults += [httpx.Response(500, text="engine dead")] * 4
        while "http://a" in ready_urls(engine):
            assert await ask(engine, *["good"] * 9) == [None] * 9
        assert "3 times in a row: broken, status 500" in (engine.trouble or "")
        assert "engine dead" not in (engine.trouble or ""), "the server's words may quote a caller's texts"
        await until(lambda: engine.trouble is None)
        assert not cluster.servers["a"].faults, "a probe met the last"


async def test_calls_that_wait_for_a_replica_move_on_when_it_is_lost(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics, urls=["http://a", "http://b"], concurrency=1) as engine:
        for server in cluster.servers.values():
            server.hold = asyncio.Event()
        asking = asyncio.create_task(ask(engine, *["stuck"] * 4, affinity="x"))
        await until(lambda: len(cluster.asked("stuck")) == 1)
        (home,) = cluster.asked("stuck")
        (other,) = {"a", "b"} - {home}
        cluster.servers[other].hold.set()
        replica = next(replica for replica in replicas(engine) if replica.name == home)
        replica.lose(EngineError("unreachable", "gone silent"))
        assert await asking == [None] * 4
        assert cluster.asked("stuck").count(other) == 4


async def test_a_replica_that_goes_away_is_noticed_though_nobody_asks(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics, heartbeat_s=0.01) as engine:
        cluster.down.add("b")
        await until(lambda: ready_urls(engine) == {"http://a", "http://c"})


async def test_a_replica_with_other_weights_is_kept_out_until_it_has_the_same(
    cluster: Cluster, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor_services.engine.pool._KEPT_OUT_PAUSE_S", 0.01)
    cluster.down.add("b")
    cluster.roots["b"] = "org/other"
    async with watched(cluster, metrics) as engine:
        cluster.down.clear()
        await until(lambda: "kept out" in (engine.trouble or ""))
        assert "http://b is kept out" in (engine.trouble or "")
        assert "engine.revision" in (engine.trouble or "")
        assert await ask(engine, *["good"] * 9) == [None] * 9
        assert "b" not in cluster.asked("good")
        cluster.roots.clear()
        await until(lambda: engine.trouble is None)


async def test_replicas_with_a_given_revision_may_lie_in_different_places(cluster: Cluster, metrics: Metrics) -> None:
    cluster.roots |= {"a": "/models/here", "b": "/models/there"}
    async with watched(cluster, metrics, revision="v7") as engine:
        assert engine.trouble is None
        assert engine.served.teacher.revision == "v7"


async def test_when_the_others_are_gone_other_weights_may_answer_but_no_cohort_that_began_before(
    cluster: Cluster, metrics: Metrics
) -> None:
    cluster.down.add("b")
    cluster.roots["b"] = "org/other"
    async with watched(cluster, metrics, urls=["http://a", "http://b"], retries=1) as engine:
        cluster.servers["a"].hold = asyncio.Event()
        asking = asyncio.create_task(ask(engine, "first", affinity="x"))
        await until(lambda: cluster.asked("first") == ["a"])
        cluster.down = {"a"}
        replicas(engine)[0].lose(EngineError("unreachable", "gone"))
        await until(lambda: ready_urls(engine) == {"http://b"})
        (error,) = await asking
        assert "the teacher changed" in (error or "")
        assert await ask(engine, "second", affinity="x") == [None]
        assert cluster.asked("first") == ["a"]


async def test_what_is_asked_of_one_teacher_is_answered_by_no_other(cluster: Cluster, metrics: Metrics) -> None:
    cluster.down.add("b")
    cluster.roots["b"] = "org/other"
    async with watched(cluster, metrics, urls=["http://a", "http://b"], retries=0) as engine:
        served = engine.served
        cluster.down = {"a"}
        replicas(engine)[0].lose(EngineError("unreachable", "gone"))
        await until(lambda: ready_urls(engine) == {"http://b"})
        (error,) = await ask(engine, "again", affinity="x", served=served)
        assert "the teacher changed" in (error or "")
        assert cluster.asked("again") == []
        assert await ask(engine, "again", affinity="x") == [None]


async def test_the_urgent_go_first(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics, urls=["http://a"], concurrency=1) as engine:
        server = cluster.servers["a"]
        server.hold = asyncio.Event()
        server.bodies.clear()
        waiting = [asyncio.create_task(ask(engine, "first"))]
        await until(lambda: len(server.bodies) == 1)
        for priority in (Priority.TRAINING, Priority.BULK, Priority.INTERACTIVE):
            waiting.append(asyncio.create_task(ask(engine, priority.name, priority=priority)))
        await until(lambda: replicas(engine)[0].load == 4)
        server.hold.set()
        await asyncio.gather(*waiting)
        order = [body["prompt"][0].split()[1] for body in server.bodies]
        assert order == ["first", "INTERACTIVE", "BULK", "TRAINING"]


async def test_a_server_that_hangs_is_left_with_whoever_waits_for_it(cluster: Cluster, metrics: Metrics) -> None:
    async with watched(cluster, metrics, urls=["http://a"], heartbeat_s=0.01, retries=0) as engine:
        cluster.servers["a"].hold = asyncio.Event()
        asking = asyncio.create_task(ask(engine, "stuck", affinity="x"))
        await until(lambda: cluster.asked("stuck") == ["a"])
        cluster.silent.add("a")
        (error,) = await asking
        assert "was lost" in (error or "")
        assert not engine.ready
        cluster.silent.clear()
        cluster.servers["a"].hold.set()
        await asyncio.wait_for(engine.wait_ready(), 5)
        assert await ask(engine, "again", affinity="x") == [None]


async def test_the_circuit_is_open_while_a_server_is_out_and_shown(cluster: Cluster, metrics: Metrics) -> None:
    def circuit() -> str:
        exposed = metrics.exposition().decode()
        (state,) = [
            state
            for state in ("closed", "half_open", "open")
            if f'preceptor_engine_circuit{{preceptor_engine_circuit="{state}",replica="a"}} 1.0' in exposed
        ]
        return state

    async with watched(cluster, metrics, urls=["http://a"], retries=0) as engine:
        assert circuit() == "closed"
        cluster.down.add("a")
        await ask(engine, "good")
        assert circuit() == "open"
        assert "(circuit open)" in (engine.trouble or "")
        cluster.down.clear()
        cluster.servers["a"].hold = asyncio.Event()
        await until(lambda: circuit() == "half_open")
        assert "(circuit half open)" in (engine.trouble or "")
        cluster.servers["a"].hold.set()
        await until(lambda: circuit() == "closed")


async def test_a_server_that_answers_probes_and_fails_work_is_left_alone_for_longer_each_time(
    cluster: Cluster, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    async with watched(cluster, metrics, urls=["http://a"], retries=0) as engine:
        monkeypatch.setattr("preceptor_services.engine.replica.asyncio.sleep", noted)
        for time in range(4):
            replicas(engine)[0].lose(EngineError("broken", f"the work fails {time}"))
            await asyncio.wait_for(engine.wait_ready(), 5)
        monkeypatch.undo()
    assert [rest for rest in rests if rest] == [0.2, 0.4, 0.8, 1.6]


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_a_server_that_answers_only_errors_is_lost(cluster: Cluster, metrics: Metrics, status: int) -> None:
    async with watched(cluster, metrics, urls=["http://a"], retries=0) as engine:
        cluster.servers["a"].faults += [httpx.Response(status)] * 3
        assert None not in await ask(engine, *["good"] * 3)
        assert f"status {status}" in (engine.trouble or "")


@pytest.mark.parametrize("status", [400, 429])
async def test_a_server_that_refuses_or_has_enough_to_do_is_not_lost(
    cluster: Cluster, metrics: Metrics, status: int
) -> None:
    async with watched(cluster, metrics, urls=["http://a"], retries=0) as engine:
        cluster.servers["a"].faults += [httpx.Response(status)] * 5
        assert None not in await ask(engine, *["good"] * 5)
        assert engine.ready


async def test_servers_behind_one_address_are_told_apart_by_their_paths(cluster: Cluster, metrics: Metrics) -> None:
    async def route(request: httpx.Request) -> httpx.Response:
        _, host, path = request.url.path.split("/", 2)
        return await cluster(httpx.Request(request.method, f"http://{host}/{path}", content=request.content))

    settings = EngineSettings(urls=("http://gateway/a", "http://gateway/b/v1"))
    async with Engine(settings, metrics, Scripted(route)) as engine:
        await engine.prepare([ONE_TOKEN])
        for number in range(20):
            assert await ask(engine, f"cohort{number}.", affinity=f"cohort-{number}") == [None]
        assert [replica.name for replica in replicas(engine)] == ["gateway/a", "gateway/b"]
    assert {host for number in range(20) for host in cluster.asked(f"cohort{number}.")} == {"a", "b"}


async def test_a_servers_password_is_not_shown(metrics: Metrics) -> None:
    async def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    settings = EngineSettings(urls=("http://user:secret@teacher:8000",))
    async with Engine(settings, metrics, Scripted(nobody)) as engine:
        trouble = engine.trouble
        with pytest.raises(EngineError) as raised:
            await engine.prepare([ONE_TOKEN])
    assert "http://user:***@teacher:8000" in (trouble or "")
    assert "secret" not in f"{trouble} {raised.value}"
