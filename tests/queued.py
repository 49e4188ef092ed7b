"""Cohorts for the queue's tests, and a Redis that a test may kill."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.contract import (
    AxisReport,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    JudgeTask,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_client.queue import CohortQueue, Delivery, Outcome, QueueOperations
from preceptor_client.stack import Process, redis_part

COHORTS, VERDICTS = "preceptor:cohorts", "preceptor:verdicts:run1"

both_protocols = pytest.mark.parametrize("connection", [2, 3], ids=["RESP2", "RESP3"], indirect=True)
"""Answers to blocking reads and to scripts are shaped differently over them."""


def a_task(name: str = "c1", run: str = "run1", prefix: str = "the sky is") -> JudgeTask:
    cohort = Cohort(id=name, prefix=prefix, candidates=(Candidate(id="a", text="blue ✓"),))
    return JudgeTask(run=run, request=JudgeRequest(cohort=cohort, axes=("safety",)))


def an_answer(task: JudgeTask, score: float = 1.0) -> JudgeResponse:
    provenance = Provenance(teacher="t", revision="r", rubric="s", rubric_hash="h", sampling=Sampling())
    return JudgeResponse(
        cohort_id=task.request.cohort.id,
        verdicts=(Verdict(candidate_id="a", axis="safety", status=Status.OK, score=score),),
        axes={"safety": AxisReport(provenance=provenance, usage=Usage(calls=1))},
        elapsed_s=0.1,
    )


async def answer(queue: CohortQueue, delivery: Delivery) -> bool:
    return await queue.settle(delivery, an_answer(delivery.task))


async def collect(outcomes: AsyncGenerator[Outcome], count: int) -> list[Outcome]:
    async with asyncio.timeout(20), aclosing(outcomes):
        return [await anext(outcomes) for _ in range(count)]


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


async def one_of_each(queue: CohortQueue) -> Delivery:
    """Of four cohorts c0 is answered, c1 buried, c2 in a worker's hands (its delivery is returned), and c3 waits."""
    for number in range(4):
        await queue.submit(a_task(f"c{number}"))
    [answered, buried, held] = await queue.take("w1", count=3)
    await answer(queue, answered)
    await queue.bury(buried, "no")
    return held


async def until_blocked(redis: Redis, clients: int = 1) -> None:
    """Returns when so many clients wait in a blocking read, which Redis tells only to those who ask."""
    async with asyncio.timeout(10):
        while (await redis.info("clients"))["blocked_clients"] < clients:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Server:
    """A Redis of the test's own on one port and folder: it may be killed, frozen and started again."""

    def __init__(self, folder: Path, port: int | None = None, *options: str) -> None:
        part = redis_part(folder, port=port)
        self._part = replace(part, command=(*part.command, *options))
        assert part.url is not None
        self.url = part.url
        self.port = int(part.url.rpartition(":")[2].partition("/")[0])
        self.start()

    def start(self) -> None:
        self.process = Process(self._part)
        self.process.wait_ready()

    def kill(self) -> None:
        """At once, without a chance to write anything."""
        self.signal(signal.SIGKILL)
        self.process.stop()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        if not self.process.exited.is_set():
            self.signal(signal.SIGCONT)
        self.process.stop(0)


class Proxy:
    """Passes bytes between clients and a Redis, by TLS if it has a certificate.

    `lose_answer_to`: the next request that holds these bytes reaches Redis, and the connection breaks instead of
    bringing its answer.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self.lose_answer_to = b""

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._target)
        lost = asyncio.Event()

        async def requests() -> None:
            while data := await reader.read(65_536):
                if self.lose_answer_to and self.lose_answer_to in data:
                    self.lose_answer_to = b""
                    lost.set()
                to_redis.write(data)

        async def answers() -> None:
            while data := await from_redis.read(65_536):
                if lost.is_set():
                    return
                writer.write(data)

        ways = {asyncio.create_task(requests()), asyncio.create_task(answers())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_redis.close()
            writer.close()
