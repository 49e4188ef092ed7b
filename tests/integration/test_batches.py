"""Batches over service processes that are killed without a word: every item is judged, and answered once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from preceptor_client import AsyncPreceptorClient, Candidate, Cohort, JudgeRequest
from preceptor_client.contract import BatchResult, BatchState
from preceptor_client.stack import Part, Process, judge_part
from served import judges_by_a_word, scripted_teacher, served

Start = Callable[..., Process]


class Teacher:
    """Judges so many candidates, then waits to be let on. Counts how often each was asked about."""

    def __init__(self) -> None:
        self.places = threading.Semaphore(0)
        self.open = threading.Event()
        self.asked: Counter[str] = Counter()

    def __call__(self, prompt: str) -> str:
        if prompt.startswith("<safety>"):
            self.asked[prompt] += 1
            while not (self.open.is_set() or self.places.acquire(timeout=0.02)):
                pass
        return judges_by_a_word(prompt)


@pytest.fixture
def teacher() -> Teacher:
    return Teacher()


@pytest.fixture
def start(tmp_path: Path, redis_url: str, teacher: Teacher) -> Iterator[Start]:
    """`start(name, port=None)`: a judge service as a process. All of them share their batches."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    settings = [f"--store.url={redis_url}", f"--store.namespace={namespace}", "--cache.enabled=false"]
    settings += ["--batches.concurrency=4", "--batches.lease_s=2", "--engine.concurrency=4"]
    processes: list[Process] = []
    with served(scripted_teacher(teacher)) as url:

        def start_one(name: str, port: int | None = None) -> Process:
            part: Part = judge_part(tmp_path / name, url, "teacher", port=port, overrides=settings)
            process = Process(part)
            processes.append(process)
            process.wait_ready()
            return process

        yield start_one
        teacher.open.set()
        for process in processes:
            process.stop()


def kill(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.exited.wait()


def requests(count: int) -> list[JudgeRequest]:
    cohorts = (
        Cohort(id=f"c{place}", prefix=f"p{place}", candidates=(Candidate(id="a", text=("good", "bad")[place % 2]),))
        for place in range(count)
    )
    return [JudgeRequest(cohort=cohort, axes=("safety",)) for cohort in cohorts]


def assert_judged(results: list[BatchResult], count: int) -> None:
    assert sorted(each.index for each in results) == [*range(count)], "every item, once"
    for each in results:
        assert each.response is not None
        assert each.response.cohort_id == f"c{each.index}"
        assert each.response.verdicts[0].score == float(each.index % 2 == 0)


async def test_a_batch_goes_on_after_its_service_was_killed(start: Start, teacher: Teacher) -> None:
    first = await asyncio.to_thread(start, "first")
    assert first.part.url is not None
    results: list[BatchResult] = []
    some = asyncio.Event()
    async with AsyncPreceptorClient(first.part.url) as client:
        batch = await client.submit_batch(requests(40))

        async def read() -> None:
            async for result in client.batch_results(batch.id):
                results.append(result)
                some.set()

        reading = asyncio.create_task(read())
        teacher.places.release(8)
        async with asyncio.timeout(60):
            await some.wait()
            await asyncio.to_thread(kill, first)
            teacher.open.set()
            await asyncio.to_thread(start, "second", int(first.part.url.rpartition(":")[2]))
            await reading
        done = await client.batch(batch.id)
    assert_judged(results, 40)
    assert (done.state, done.done, done.failed) == (BatchState.DONE, 40, 0)
    assert teacher.asked.total() <= 40 + 4, "only what was in hand is judged again"


async def test_replicas_share_a_batch_and_take_over_from_one_that_died(start: Start, teacher: Teacher) -> None:
    first, second = await asyncio.gather(*(asyncio.to_thread(start, name) for name in ("first", "second")))
    async with AsyncPreceptorClient(second.part.url) as client, httpx.AsyncClient() as http:
        batch = await client.submit_batch(requests(30))
        async with asyncio.timeout(60):
            for process in (first, second):
                metrics = ""
                while "\npreceptor_batch_items_in_hand 4.0" not in metrics:
                    metrics = (await http.get(f"{process.part.url}/metrics")).text
            await asyncio.to_thread(kill, first)
            teacher.open.set()
            results = [result async for result in client.batch_results(batch.id)]
    assert_judged(results, 30)
