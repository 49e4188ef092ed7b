"""The queue on a real Redis that is killed, frozen, full, read-only, failed over, behind TLS, or no Redis at all."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis

from preceptor_client.queue import (
    CohortQueue,
    QueueMisfit,
    QueueOperations,
    QueueUnavailable,
    Trouble,
    check_redis,
    connect,
)
from preceptor_client.stack import Process, claim_port, redis_probe
from preceptor_client.stack.parts import find_redis_server
from preceptor_client.stack.process import Part
from queued import Proxy, Server, a_task, answer, collect, until_blocked

LEASE_MS = 500


class Troubles:
    """Counts what a queue says, and waits for it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told = asyncio.Event()

    def __call__(self, trouble: Trouble | None) -> None:
        self.counts[trouble.kind if trouble else "over"] += 1
        self._told.set()

    async def wait(self, kind: str) -> None:
        async with asyncio.timeout(15):
            while not self.counts[kind]:
                self._told.clear()
                await self._told.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    # With `everysec` a kill may take what was written while the disk was busy.
    server = Server(tmp_path / "redis", None, "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@asynccontextmanager
async def working(redis: Redis) -> AsyncIterator[None]:
    """A worker that answers everything."""
    queue = CohortQueue(redis)

    async def work() -> None:
        await queue.open_group()
        while True:
            for delivery in await queue.take("worker", count=4, lease_ms=LEASE_MS):
                await answer(queue, delivery)

    task = asyncio.create_task(work())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_redis_killed_again_and_again_in_mid_traffic_loses_nothing(server: Server, troubles: Troubles) -> None:
    count, ends, more = 150, Counter[str](), asyncio.Event()

    async with connect(server.url) as redis, connect(server.url) as other:
        queue = CohortQueue(redis, bound=16, on_trouble=troubles)

        async def produce() -> None:
            for number in range(count):
                await queue.submit(a_task(f"c{number}"))

        async def consume() -> None:
            async for outcome in queue.outcomes("run1"):
                assert outcome.response is not None
                ends[outcome.cohort_id] += 1
                more.set()
                await queue.forget("run1", [outcome])
                if len(ends) == count:
                    return

        async with asyncio.timeout(60), working(other), asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
            for ended in (20, 60, 100):
                while len(ends) < ended:
                    more.clear()
                    await more.wait()
                server.kill()
                await asyncio.sleep(0.1)
                server.start()
        assert sorted(ends) == sorted(f"c{number}" for number in range(count))
        assert set(ends.values()) == {1}
        status = await QueueOperations(redis).status()
        assert (status.waiting, status.in_flight, status.dead, status.runs) == (0, 0, 0, {})
    assert troubles.counts["away"] >= 3
    assert troubles.counts["over"] >= 3


async def test_a_frozen_redis_is_noticed_and_ridden_through(server: Server, troubles: Troubles) -> None:
    async with connect(f"{server.url}?socket_timeout=1.2") as redis, working(redis):
        queue = CohortQueue(redis, on_trouble=troubles)
        reading = asyncio.create_task(collect(queue.outcomes("run1"), 2))
        await queue.submit(a_task("before"))
        await until_blocked(redis)
        server.signal(signal.SIGSTOP)
        await troubles.wait("away")  # the idle reader notices by itself
        submitting = asyncio.create_task(queue.submit(a_task("during")))
        server.signal(signal.SIGCONT)
        await submitting
        assert {outcome.cohort_id for outcome in await reading} == {"before", "during"}
    assert troubles.counts["over"] >= 1


async def test_a_full_redis_pauses_the_producer_while_what_is_there_is_judged(
    server: Server, troubles: Troubles
) -> None:
    async with connect(server.url) as redis, connect(server.url) as other:
        queue = CohortQueue(redis, on_trouble=troubles)
        await queue.open_group()
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 2_000_000)

        async def produce() -> None:
            for number in range(60):
                await queue.submit(a_task(f"c{number}", prefix="x" * 60_000))

        producing = asyncio.create_task(produce())
        await troubles.wait("full")
        stuck = (await QueueOperations(redis).status()).waiting
        assert 5 < stuck < 60
        assert not producing.done()
        async with working(other), aclosing(queue.outcomes("run1")) as outcomes:
            for _ in range(60):
                await queue.forget("run1", [await asyncio.wait_for(anext(outcomes), 20)])
        await producing
    assert set(troubles.counts) == {"full", "over"}


async def test_too_few_replicas_pause_the_producer(server: Server, troubles: Troubles) -> None:
    async with connect(server.url) as redis:
        await redis.config_set("min-replicas-to-write", 1)
        submitting = asyncio.create_task(CohortQueue(redis, on_trouble=troubles).submit(a_task()))
        await troubles.wait("full")
        await redis.config_set("min-replicas-to-write", 0)
        assert await asyncio.wait_for(submitting, 10)
    assert set(troubles.counts) == {"full", "over"}


async def test_a_replica_pauses_the_producer_until_it_is_the_master(tmp_path: Path, troubles: Troubles) -> None:
    master, replica = Server(tmp_path / "master"), Server(tmp_path / "replica")
    try:
        async with connect(replica.url) as redis:
            await redis.replicaof("127.0.0.1", master.port)
            assert any("replica" in warning for warning in await check_redis(redis))
            queue = CohortQueue(redis, on_trouble=troubles)
            submitting = asyncio.create_task(queue.submit(a_task()))
            await troubles.wait("read_only")
            async with connect(replica.url) as other:
                assert (await QueueOperations(other).status()).waiting == 0, "looking is allowed"
                with pytest.raises(QueueUnavailable, match="read-only"):
                    await CohortQueue(other, patience_s=0.1).submit(a_task("c2"))
            await redis.replicaof("NO", "ONE")
            assert await asyncio.wait_for(submitting, 10)
    finally:
        master.stop()
        replica.stop()


def a_sentinel(folder: Path, master: int) -> tuple[Process, int]:
    folder.mkdir()
    port = claim_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
    )
    command = (find_redis_server(), str(configuration), "--sentinel")
    process = Process(
        Part("sentinel", command, folder / "sentinel.log", probe=redis_probe(f"redis://127.0.0.1:{port}"))
    )
    process.wait_ready()
    return process, port


async def knows_a_replica(port: int) -> bool:
    async with connect(f"redis://127.0.0.1:{port}") as sentinel:
        found = await sentinel.execute_command("SENTINEL", "REPLICAS", "main")  # type: ignore[no-untyped-call]
    return len(found) == 1


async def test_a_fail_over_by_sentinels_is_ridden_through_and_what_it_lost_is_named(
    tmp_path: Path, troubles: Troubles
) -> None:
    master, replica = Server(tmp_path / "master"), Server(tmp_path / "replica")
    sentinel: Process | None = None
    try:
        async with connect(replica.url) as copy, connect(master.url) as old:
            await copy.replicaof("127.0.0.1", master.port)

            async def replicating() -> bool:
                return (await copy.info("replication")).get("master_link_status") == "up"

            await eventually(replicating)
            sentinel, port = a_sentinel(tmp_path / "sentinel", master.port)
            url = f"redis+sentinel://127.0.0.1:{claim_port()},127.0.0.1:{port}/main/0?socket_timeout=2"
            async with connect(url) as redis:
                await check_redis(redis)
                queue = CohortQueue(redis, on_trouble=troubles)
                await queue.open_group()
                for number in range(6):
                    await queue.submit(a_task(f"c{number}"))
                [held] = await queue.take("worker")
                assert await old.wait(1, 5_000) == 1
                await eventually(lambda: knows_a_replica(port))
                # Cut the replica off, so that the master's last writes are lost with it.
                await old.config_set("requirepass", "cut-off")
                await old.client_kill_filter(_type="replica")
                for number in (6, 7):
                    await CohortQueue(old).submit(a_task(f"c{number}"))
                master.kill()
                assert await answer(queue, held), "its lease moved to the new master with it"
                await queue.submit(a_task("c8"))
                names = [f"c{number}" for number in range(9)]
                assert await queue.missing("run1", names) == ["c6", "c7"]
                for name in ("c6", "c7"):
                    assert await queue.submit(a_task(name))
                async with working(redis):
                    outcomes = await collect(queue.outcomes("run1"), 9)
                assert sorted(outcome.cohort_id for outcome in outcomes) == names
        assert troubles.counts["away"] + troubles.counts["read_only"] >= 1
    finally:
        if sentinel:
            sentinel.stop(0)
        master.stop()
        replica.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for the loopback address, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "redis.pem"
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + signed.public_bytes(encoding))
    return file


async def test_tls_works_with_a_trusted_certificate_and_says_what_lacks_without(
    redis: Redis, redis_url: str, certificate: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    target = int(redis_url.rpartition(":")[2].partition("/")[0])
    async with Proxy(target, tls) as port:
        async with connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}") as secure, working(secure):
            queue = CohortQueue(secure)
            await queue.submit(a_task())
            [outcome] = await collect(queue.outcomes("run1"), 1)
            assert outcome.cohort_id == "c1"
        async with connect(f"rediss://127.0.0.1:{port}/0") as stranger:
            with pytest.raises(QueueMisfit, match="certificate is not trusted: add ssl_ca_certs"):
                await check_redis(stranger)


async def test_a_lost_answer_doubles_nothing(redis: Redis, redis_url: str, troubles: Troubles) -> None:
    proxy = Proxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    async with proxy as port, connect(f"redis://127.0.0.1:{port}/0") as unlucky:
        queue = CohortQueue(unlucky, on_trouble=troubles)
        await queue.open_group()
        await queue.submit(a_task("known"))
        proxy.lose_answer_to = b'"the sky is"'
        await queue.submit(a_task("once"))
        deliveries = await queue.take("w1", count=9)
        assert [delivery.task.request.cohort.id for delivery in deliveries] == ["known", "once"]
        await answer(queue, deliveries[0])
        proxy.lose_answer_to = b'"verdicts"'
        await answer(queue, deliveries[1])
        assert len(await collect(queue.outcomes("run1"), 2)) == 2
        assert await redis.xlen("preceptor:verdicts:run1") == 2
    assert troubles.counts == {"away": 2, "over": 2}


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    server = Server(tmp_path / "redis", None, "--unixsocket", str(path))
    try:
        async with connect(f"unix://{path}?db=0") as redis, working(redis):
            assert await check_redis(redis) == []
            queue = CohortQueue(redis)
            await queue.submit(a_task())
            await collect(queue.outcomes("run1"), 1)
    finally:
        server.stop()


async def test_nobody_there_is_said_when_patience_is_over() -> None:
    async with connect(f"redis://127.0.0.1:{claim_port()}/0") as redis:
        for call in (check_redis(redis), CohortQueue(redis, patience_s=0.2).submit(a_task())):
            with pytest.raises(QueueUnavailable, match="Redis is away") as caught:
                await call
            assert caught.value.trouble.kind == "away"


async def test_a_redis_that_keeps_less_than_it_should_is_warned_about(redis: Redis, server: Server) -> None:
    assert await check_redis(redis) == []
    async with connect(server.url) as other:
        await other.config_set("appendonly", "no")
        await other.config_set("maxmemory", "100mb")
        await other.config_set("maxmemory-policy", "allkeys-lru")
        first, second = await check_redis(other)
        assert "appendonly yes" in first
        assert "maxmemory-policy noeviction" in second


async def test_what_cannot_serve_says_what_to_change(server: Server) -> None:
    async with connect(server.url) as own:
        await own.set("preceptor:dead", "a string")
        with pytest.raises(QueueMisfit, match="preceptor:dead is a string in this Redis: choose another namespace"):
            await check_redis(own)
        await own.set("preceptor:cohorts", "a string")
        for call in (CohortQueue(own).submit(a_task()), CohortQueue(own).take("w1")):
            with pytest.raises(QueueMisfit, match="another namespace"):
                await call
        assert await check_redis(own, namespace="other") == []
        await own.config_set("requirepass", "secret")
    async with connect(server.url) as own:
        with pytest.raises(QueueMisfit, match="asks for a password"):
            await check_redis(own)
    for url in (server.url.replace("://", "://:wrong@"), f"{server.url}?password=wrong"):
        async with connect(url) as own:
            with pytest.raises(QueueMisfit, match="password is wrong"):
                await CohortQueue(own).submit(a_task())


async def test_a_cluster_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "redis", None, "--cluster-enabled", "yes")
    try:
        async with connect(server.url) as redis:
            with pytest.raises(QueueMisfit, match="Redis Cluster"):
                await check_redis(redis)
    finally:
        server.stop()


async def serving(answer_to: Callable[[bytes], bytes]) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(answer_to(data))
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_another_program_and_an_old_redis_are_told_apart_from_one_that_is_away() -> None:
    async with await serving(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"redis://127.0.0.1:{port}/0?protocol=2") as redis:
            with pytest.raises(QueueMisfit, match="no Redis"):
                await check_redis(redis)

    def like_5(request: bytes) -> bytes:
        info = b"redis_version:5.0.14\r\n"
        return b"$%d\r\n%s\r\n" % (len(info), info) if b"INFO\r\n" in request else b"+OK\r\n" * request.count(b"*")

    async with await serving(like_5) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"redis://127.0.0.1:{port}/0?protocol=2") as redis:
            with pytest.raises(QueueMisfit, match=r"this is Redis 5\.0\.14, and the queue needs 6\.2"):
                await check_redis(redis)
