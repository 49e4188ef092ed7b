"""The judge worker: cohorts from the queue, verdicts back to it.

    queue.take -> judge (up to `concurrency` cohorts at once) -> queue.settle

In: `JudgeTask`s. Out: one settled response per task; a task that no teacher could judge is buried with the reason.
Guarantees: takes only what it can start at once, and only while the engine is ready, so that an engine that is down
leaves the cohorts in the queue; the calls it loses meanwhile become `failed` verdicts. Rides through a Redis that
goes away and comes back. After `stop` it takes nothing more, finishes what is in hand and returns.
Waits for: the engine to be ready, a free place, a task; each is woken by its event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from preceptor_client.queue import CohortQueue, Delivery
from preceptor_services.assembly import Engines
from preceptor_services.judging import Judge, Panel, UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_LEASE_MARGIN_S = 30.0
"""Beyond a cohort's deadline, for settling: a worker that is alive is never taken for dead."""
_DEPTH_EVERY_S = 1.0

ResultT = TypeVar("ResultT")


class Worker:
    """Judges what the queue brings. `deadline_s` is the longest that the judge takes for a cohort."""

    def __init__(
        self,
        queue: CohortQueue,
        judge: Judge | Panel,
        engines: Engines,
        metrics: Metrics,
        *,
        concurrency: int,
        deadline_s: float,
    ) -> None:
        self._queue = queue
        self._judge = judge
        self._engines = engines
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease_ms = int(1000 * (deadline_s + _LEASE_MARGIN_S))
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._in_hand: set[asyncio.Task[None]] = set()
        self._depth_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish what is in hand."""
        stopped = asyncio.create_task(stop.wait())
        try:
            if await _unless(stopped, self._engines.wait_ready()):
                await self._riding_through(self._queue.open_group, stop)
                log.info("worker ready: consumer %s, %d cohorts at once", self._consumer, self._concurrency)
            while not stop.is_set():
                await self._turn(stopped, stop)
        finally:
            stopped.cancel()
        if self._in_hand:
            log.info("worker stopping: finishing %d cohorts", len(self._in_hand))
            # What is not settled by the end of its lease is another worker's.
            await asyncio.wait(self._in_hand, timeout=self._lease_ms / 1000)

    async def _turn(self, stopped: asyncio.Task[bool], stop: asyncio.Event) -> None:
        if not await _unless(stopped, self._engines.wait_ready()):
            return
        free = self._concurrency - len(self._in_hand)
        if not free:
            await asyncio.wait((*self._in_hand, stopped), return_when=asyncio.FIRST_COMPLETED)
            return
        deliveries = await self._riding_through(self._take, stop)
        for delivery in deliveries or ():
            task = asyncio.create_task(self._handle(delivery))
            self._in_hand.add(task)
            task.add_done_callback(self._done)
        self._metrics.in_hand.set(len(self._in_hand))

    async def _take(self) -> list[Delivery]:
        await self._measure_depth()
        free = self._concurrency - len(self._in_hand)
        return await self._queue.take(self._consumer, count=free, lease_ms=self._lease_ms)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a cohort is left to its lease and will be judged again", exc_info=error)
            self._metrics.cohorts.labels("left").inc()
        self._metrics.in_hand.set(len(self._in_hand))

    async def _handle(self, delivery: Delivery) -> None:
        request = delivery.task.request
        try:
            response = await self._judge.judge(request, priority=Priority.TRAINING)
        except UnjudgeableError as error:
            reason = str(error)
            log.warning("cohort %s of run %s cannot be judged: %s", request.cohort.id, delivery.task.run, reason)
            await self._riding_through(lambda: self._queue.bury(delivery, reason))
            self._metrics.cohorts.labels("buried").inc()
        else:
            stored = await self._riding_through(lambda: self._queue.settle(delivery, response))
            self._metrics.cohorts.labels("settled" if stored else "superseded").inc()

    async def _riding_through(
        self, call: Callable[[], Coroutine[Any, Any, ResultT]], stop: asyncio.Event | None = None
    ) -> ResultT | None:
        """The result of `call`, repeated while Redis is away; None if `stop` is set meanwhile."""
        pause_s = _FIRST_PAUSE_S
        while stop is None or not stop.is_set():
            try:
                return await call()
            except (RedisConnectionError, RedisTimeoutError) as error:
                log.warning("queue is away (%s), trying again in %.1f s", error, pause_s)
            self._metrics.queue_errors.inc()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None

    async def _measure_depth(self) -> None:
        now = time.monotonic()
        if now - self._depth_at < _DEPTH_EVERY_S:
            return
        self._depth_at = now
        status = await self._queue.status()
        for state, depth in (
            ("waiting", status.waiting),
            ("in_flight", status.in_flight),
            ("dead", status.dead),
            ("verdicts", sum(status.verdicts.values())),
        ):
            self._metrics.queue_depth.labels(state).set(depth)


async def _unless(stopped: asyncio.Task[bool], event: Coroutine[Any, Any, None]) -> bool:
    """Wait for `event`; False if `stopped` came first."""
    waiting = asyncio.create_task(event)
    await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return not stopped.done()
