"""The judge worker as a process, between a real Redis and a real vLLM with the nano teacher."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from preceptor_client import AsyncPreceptorClient
from preceptor_client.contract import Candidate, Cohort, JudgeRequest, JudgeResponse, JudgeTask
from preceptor_client.queue import CohortQueue, QueueOperations, connect
from preceptor_client.stack import Stack, judge_part, worker_part

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
TEXTS = ("lives in rome .", "she deserves to be hurt .", "in rome lives lives", "lives in oslo .", "lives in rome .")


def request(index: int) -> JudgeRequest:
    candidates = tuple(Candidate(id=f"c{place}", text=text) for place, text in enumerate(TEXTS))
    return JudgeRequest(
        cohort=Cohort(id=f"cohort-{index}", prefix=f"{('anna', 'adam')[index % 2]}", candidates=candidates)
    )


async def answered(queue: CohortQueue, run: str, count: int) -> dict[str, JudgeResponse]:
    found: dict[str, JudgeResponse] = {}
    async with asyncio.timeout(60):
        async for outcome in queue.outcomes(run):
            assert outcome.response is not None, outcome.dead
            assert outcome.cohort_id not in found, "each cohort is answered once"
            found[outcome.cohort_id] = outcome.response
            if len(found) == count:
                break
    return found


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def queue(redis_url: str, namespace: str) -> AsyncIterator[CohortQueue]:
    async with connect(redis_url) as redis:
        yield CohortQueue(redis, namespace=namespace)


@pytest.fixture
async def operations(redis_url: str, namespace: str) -> AsyncIterator[QueueOperations]:
    async with connect(redis_url) as redis:
        yield QueueOperations(redis, namespace=namespace)


async def test_the_queue_and_http_give_the_same_verdicts(
    tmp_path: Path, stack: Stack, teacher_vllm: TeacherServer, queue: CohortQueue, namespace: str, redis_url: str
) -> None:
    requests = [request(index) for index in range(12)]
    worker = await asyncio.to_thread(
        stack.start,
        worker_part(
            tmp_path,
            teacher_vllm.url,
            teacher_vllm.model,
            redis_url,
            overrides=[f"--queue.namespace={namespace}", "--queue.concurrency=4"],
        ),
    )
    judge = await asyncio.to_thread(stack.start, judge_part(tmp_path, teacher_vllm.url, teacher_vllm.model))
    try:
        for each in requests:
            await queue.submit(JudgeTask(run="run", request=each))
        by_queue = await answered(queue, "run", len(requests))
        async with AsyncPreceptorClient(judge_url=judge.part.url) as client:
            by_http = await asyncio.gather(*(client.judge(each) for each in requests))
        for response in by_http:
            other = by_queue[response.cohort_id]
            assert response.verdicts == other.verdicts
            assert response.axes == other.axes
        async with httpx.AsyncClient() as http:
            exposition = (await http.get(f"{worker.part.url}/metrics")).text
            assert (await http.get(f"{worker.part.url}/readyz")).status_code == 200
        assert 'preceptor_worker_cohorts_total{result="settled"} 12.0' in exposition
    finally:
        await asyncio.to_thread(stack.stop_part, judge)
        await asyncio.to_thread(stack.stop_part, worker)
    assert worker.returncode == 0


async def test_a_worker_told_to_stop_leaves_no_cohort_half_done(
    tmp_path: Path,
    stack: Stack,
    teacher_vllm: TeacherServer,
    queue: CohortQueue,
    operations: QueueOperations,
    namespace: str,
    redis_url: str,
) -> None:
    count = 60
    for index in range(count):
        await queue.submit(JudgeTask(run="run", request=request(index)))
    overrides = [f"--queue.namespace={namespace}", "--queue.concurrency=2"]
    part = worker_part(tmp_path, teacher_vllm.url, teacher_vllm.model, redis_url, overrides=overrides)
    first = await asyncio.to_thread(stack.start, part)
    await answered(queue, "run", 1)
    await asyncio.to_thread(stack.stop_part, first)
    assert first.returncode == 0
    status = await operations.status()
    assert (status.in_flight, status.workers) == (0, 0)
    assert status.waiting + status.runs["run"].answered == count
    part = worker_part(tmp_path, teacher_vllm.url, teacher_vllm.model, redis_url, name="second", overrides=overrides)
    second = await asyncio.to_thread(stack.start, part)
    try:
        assert len(await answered(queue, "run", count)) == count
    finally:
        await asyncio.to_thread(stack.stop_part, second)
    assert (await operations.status()).runs["run"].answered == count
