"""Teachers and workers that are killed or hang, as real processes: every cohort is judged in the end and answered once,
and no verdict fails for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from preceptor_client import AsyncPreceptorClient
from preceptor_client.contract import Candidate, Cohort, JudgeRequest, JudgeResponse, JudgeTask, Status
from preceptor_client.queue import CohortQueue, QueueOperations, connect
from preceptor_client.stack import Part, Process, Stack, judge_part, worker_part

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
RUN = "run"
TEXTS = ("lives in rome .", "she deserves to be hurt .", "in rome lives lives", "lives in oslo .")
IMPATIENT = ["--engine.heartbeat_s=0.3", "--engine.heartbeat_timeout_s=0.7"]
LEASE_S = 2.0


def request(name: str) -> JudgeRequest:
    candidates = tuple(Candidate(id=f"c{place}", text=text) for place, text in enumerate(TEXTS))
    return JudgeRequest(cohort=Cohort(id=name, prefix="anna", candidates=candidates))


class Teacher:
    """The session's vLLM server, which is there again after each test."""

    def __init__(self, stack: Stack, server: TeacherServer) -> None:
        self._stack = stack
        self.url = server.url
        self.model = server.model

    @property
    def _process(self) -> Process:
        return next(process for process in self._stack.processes if process.part.url == self.url)

    def kill(self) -> Part:
        """Without a word; what is returned can be started again."""
        process = self._process
        os.killpg(process.pid, signal.SIGKILL)
        self._stack.stop_part(process)
        return process.part

    async def restart(self, part: Part) -> None:
        process = self._stack.launch(part)  # in the thread that lives as long as it
        await asyncio.to_thread(self._stack.wait_ready, process)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and says nothing."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)


@pytest.fixture
def teacher(stack: Stack, teacher_vllm: TeacherServer) -> Teacher:
    return Teacher(stack, teacher_vllm)


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


class Queue:
    """The queue, and what comes of it."""

    def __init__(self, queue: CohortQueue, operations: QueueOperations) -> None:
        self._queue = queue
        self._operations = operations
        self._outcomes = queue.outcomes(RUN)
        self._submitted = 0
        self.found: dict[str, JudgeResponse] = {}

    async def submit(self, count: int) -> None:
        for _ in range(count):
            self._submitted += 1
            await self._queue.submit(JudgeTask(run=RUN, request=request(f"cohort-{self._submitted}")))

    async def answered(self, count: int) -> None:
        """Returns when so many cohorts have been answered, each once."""
        async with asyncio.timeout(120):
            while len(self.found) < count:
                outcome = await anext(self._outcomes)
                assert outcome.response is not None, outcome.dead
                assert outcome.cohort_id not in self.found
                self.found[outcome.cohort_id] = outcome.response

    async def ended(self) -> None:
        """Nothing is left, nothing came twice, and every verdict has a score."""
        status = await self._operations.status()
        assert (status.waiting, status.in_flight, status.dead) == (0, 0, 0)
        assert status.runs[RUN].answered == len(self.found)
        verdicts = [verdict for response in self.found.values() for verdict in response.verdicts]
        assert not [verdict for verdict in verdicts if verdict.status is Status.FAILED]


@pytest.fixture
async def queue(redis_url: str, namespace: str) -> AsyncIterator[Queue]:
    async with connect(redis_url) as redis:
        yield Queue(CohortQueue(redis, namespace=namespace), QueueOperations(redis, namespace=namespace))


StartWorker = Callable[[str], Awaitable[Process]]


@pytest.fixture
def start_worker(tmp_path: Path, teacher: Teacher, redis_url: str, namespace: str) -> Iterator[StartWorker]:
    settings = [f"--queue.namespace={namespace}", "--queue.concurrency=2", f"--queue.lease_s={LEASE_S}", *IMPATIENT]
    workers: list[Process] = []

    async def start_one(name: str) -> Process:
        part = worker_part(tmp_path, teacher.url, teacher.model, redis_url, name=name, overrides=settings)
        workers.append(Process(part))
        await asyncio.to_thread(workers[-1].wait_ready)
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.stop()


async def shown(url: str | None, wanted: str) -> None:
    """Returns when `wanted`, a regular expression, is found in what is at `url`."""
    async with asyncio.timeout(30), httpx.AsyncClient(timeout=5) as http:
        while not re.search(wanted, (await http.get(url or "")).text):  # noqa: ASYNC110 - the other process has no event
            await asyncio.sleep(0.05)


async def test_a_teacher_that_is_killed_loses_nobody_a_verdict(
    tmp_path: Path, teacher: Teacher, queue: Queue, start_worker: StartWorker, redis_url: str, namespace: str
) -> None:
    settings = [f"--store.url={redis_url}", f"--store.namespace={namespace}", "--batches.concurrency=2", *IMPATIENT]
    judge = Process(judge_part(tmp_path, teacher.url, teacher.model, overrides=[*settings, "--cache.enabled=false"]))
    try:
        worker = await start_worker("worker")
        await asyncio.to_thread(judge.wait_ready)
        async with AsyncPreceptorClient(judge_url=judge.part.url or "") as client:
            batch = await client.submit_batch([request(f"item-{index}") for index in range(60)])
            results = client.batch_results(batch.id)
            found = [await anext(results)]
            await queue.submit(60)
            await queue.answered(2)
            killed = teacher.kill()
            try:
                for part in (worker.part, judge.part):
                    await shown(f"{part.url}/readyz", "circuit")
            finally:
                await teacher.restart(killed)
            await queue.answered(60)
            await queue.ended()
            found += [result async for result in results]
    finally:
        judge.stop()
    assert sorted(result.index for result in found) == [*range(60)]
    statuses = {v.status for result in found if result.response for v in result.response.verdicts}
    assert all(result.response for result in found)
    assert Status.FAILED not in statuses


async def test_a_teacher_that_hangs_is_left_alone_until_it_goes_on(
    teacher: Teacher, queue: Queue, start_worker: StartWorker
) -> None:
    worker = await start_worker("worker")
    await queue.submit(40)
    await queue.answered(2)
    with teacher.hanging():
        await shown(f"{worker.part.url}/readyz", "circuit")
        await shown(f"{worker.part.url}/metrics", r'preceptor_worker_cohorts_total\{result="handed_back"\} [1-9]')
        await shown(f"{worker.part.url}/metrics", "preceptor_worker_in_hand 0.0")
    await queue.answered(40)
    await queue.ended()


async def test_workers_come_and_go_in_the_middle(queue: Queue, start_worker: StartWorker) -> None:
    first = await start_worker("first")
    await queue.submit(2)
    await queue.answered(2)
    second = await start_worker("second")
    await queue.submit(100)
    await shown(f"{second.part.url}/metrics", r'preceptor_worker_cohorts_total\{result="settled"\} [1-9]')
    os.killpg(first.pid, signal.SIGKILL)
    await queue.answered(102)
    await queue.ended()
    assert await asyncio.to_thread(second.stop) == 0
