"""Cohorts a second against the number of judges: real workers on a real queue, before an engine of a set latency.

The workers share this process and its processor, so that the limit that ends the growth is in sight: the share of the
processor that they take is measured beside.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import islice
from typing import Any

from redis.asyncio import Redis

from benchmarks.growth_parts.curves import Curve
from benchmarks.growth_parts.queue_curves import RUN, tasks
from preceptor_client.queue import CohortQueue
from preceptor_services.assembly import Engines
from preceptor_services.engine import Engine
from preceptor_services.engine.connection import Reply
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings, JudgingSettings
from preceptor_services.worker import Worker

CONCURRENCY, ROUNDS = 4, 6
LEASE_S = 60.0


async def judge_curves(redis: Redis, workers: Sequence[int], latency_s: float) -> tuple[Curve, list[float]]:
    """The curve, and of each size the share of one processor."""
    measured = [await _judged(redis, count, latency_s) for count in workers]
    throughput = [cohorts_a_second for cohorts_a_second, _ in measured]
    return (
        Curve("judging", "judges", "cohorts/s", workers, throughput, "proportional"),
        [share for _, share in measured],
    )


async def _judged(redis: Redis, workers: int, latency_s: float) -> tuple[float, float]:
    """Every worker has `ROUNDS` times as much to do as it may have in hand."""
    await redis.flushall()
    count = workers * CONCURRENCY * ROUNDS
    queue = CohortQueue(redis, bound=count, run_bound=count)
    await queue.open_group()
    await queue.submit_many(list(islice(tasks(), count)))
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        running = [await _worker(redis, latency_s, stack) for _ in range(workers)]
        began, busy = time.perf_counter(), time.process_time()
        working = [asyncio.create_task(worker.run(stop)) for worker in running]
        left = count
        async with aclosing(queue.outcome_pages(RUN)) as pages:
            async for page in pages:
                assert all(outcome.response for outcome in page)
                left -= len(page)
                if not left:
                    break
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        stop.set()
        await asyncio.gather(*working)
    return count / seconds, busy / seconds


class _SetLatency:
    """An engine that finds everything safe. It takes between a half and one and a half of `latency_s`, so that what is
    asked at the same time is not answered at the same time."""

    def __init__(self) -> None:
        self.latency_s = 0.0
        self._dice = random.Random(0)

    async def exchange(self, method: str, url: str, content: bytes | None, patience_s: float) -> Reply:
        if url.endswith("/v1/models"):
            return _reply({"data": [{"id": "teacher", "root": "teacher"}]})
        body = json.loads(content or b"{}")
        if url.endswith("/tokenize"):
            return _reply({"tokens": [hash(word) % 1000 for word in body["prompt"].split()]})
        await asyncio.sleep(self.latency_s * self._dice.uniform(0.5, 1.5))
        answers = [{"index": index, "text": " safe"} for index in range(len(body["prompt"]) * body["n"])]
        return _reply({"choices": answers, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _reply(content: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(content).encode())


async def _worker(redis: Redis, latency_s: float, stack: AsyncExitStack) -> Worker:
    metrics = Metrics()
    settings = EngineSettings(urls=("http://engine",))
    transport = _SetLatency()
    engine = await stack.enter_async_context(Engine(settings, metrics, transport))
    judge = Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics)
    await engine.prepare(judge.probes)
    transport.latency_s = latency_s
    return Worker(
        CohortQueue(redis),
        judge,
        Engines([engine], 1),
        Quarantine(redis, namespace="growth", lease_s=LEASE_S),
        metrics,
        concurrency=CONCURRENCY,
        lease_s=LEASE_S,
        grace_s=0.0,
    )
