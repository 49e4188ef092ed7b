"""The judge worker: cohorts from the queue, verdicts back to it. Any number of them share a queue.

    queue.take -> judge (up to `concurrency` cohorts at once) -> queue.settle | bury | hand_back
                  queue.renew, while it lasts

In: `JudgeTask`s. Out: one settled response per task; a task that no teacher could judge is buried with the reason, one
whose engine was lost is handed back with the error, to be judged again: no verdict fails because of an outage.
Guarantees: takes only what it can start at once, and only while the engine is ready, so that an engine that is down
leaves the cohorts in the queue. What it holds is nobody else's for as long as judging takes; what it lost its hold of
(withdrawn, taken over) it gives up. After `stop` it takes nothing more, goes on with what is in hand for `grace_s` and
hands back the rest, which does not count as an attempt. A worker that dies leaves what it holds to the lease.
Waits for: the engine to be ready, a free place, a task, each woken by its event; and for Redis, as long as it takes.
Raises `QueueMisfit` when that cannot help.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from preceptor_client import tracing
from preceptor_client.queue import CohortQueue, Delivery
from preceptor_services.assembly import Engines
from preceptor_services.engine import EngineError
from preceptor_services.judging import Judge, Panel, UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority
from preceptor_services.quarantine import Quarantine, rest_s
from preceptor_services.traces import delivered

log = logging.getLogger(__name__)

_RENEWALS = 3
"""Per lease: a renewal that comes late, or is lost once, costs nothing."""
_FAREWELL_S = 2.0
"""For what is handed back at the end. A take waits for less than that, unless Redis is away."""

ResultT = TypeVar("ResultT")


@dataclass
class _Held:
    """A delivery in hand. `judged` once all that is left to do is to tell the queue."""

    delivery: Delivery
    judged: bool = False


class Worker:
    """Judges what the queue brings."""

    def __init__(
        self,
        queue: CohortQueue,
        judge: Judge | Panel,
        engines: Engines,
        quarantine: Quarantine,
        metrics: Metrics,
        *,
        concurrency: int,
        lease_s: float,
        grace_s: float,
    ) -> None:
        self._queue = queue
        self._judge = judge
        self._engines = engines
        self._quarantine = quarantine
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._in_hand: dict[asyncio.Task[None], _Held] = {}
        self._not_begun: list[Delivery] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish or hand back what is in hand."""
        stopped = asyncio.create_task(stop.wait())
        renewing = asyncio.create_task(self._keep_leases())
        try:
            await _unless(stopped, self._queue.open_group())
            log.info("worker started: consumer %s, %d cohorts at once", self._consumer, self._concurrency)
            while not (stop.is_set() or renewing.done()):
                await self._turn(stopped)
            if renewing.done():
                renewing.result()  # raises what ended it: cohorts without a lease would be judged again and again
        finally:
            await self._drain()
            renewing.cancel()
            stopped.cancel()

    async def _turn(self, stopped: asyncio.Task[bool]) -> None:
        await _unless(stopped, self._engines.wait_ready())
        free = self._concurrency - len(self._in_hand)
        if not free:
            await asyncio.wait((*self._in_hand, stopped), return_when=asyncio.FIRST_COMPLETED)
        elif not stopped.done():
            deliveries = await _unless(stopped, self._take(free), patience_s=_FAREWELL_S) or []
            if stopped.done():
                self._not_begun = deliveries
                return
            for delivery in deliveries:
                held = _Held(delivery)
                task = asyncio.create_task(self._handle(held, stopped))
                self._in_hand[task] = held
                task.add_done_callback(self._done)
            self._metrics.in_hand.set(len(self._in_hand))

    async def _take(self, count: int) -> list[Delivery]:
        return await self._queue.take(self._consumer, count=count, lease_ms=int(1000 * self._lease_s))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("a cohort is left to its lease and will be judged again", exc_info=error)
            self._metrics.cohorts.labels("left").inc()
        self._metrics.in_hand.set(len(self._in_hand))

    async def _handle(self, held: _Held, stopped: asyncio.Task[bool]) -> None:
        with delivered(held.delivery) as span:
            result = await self._deal_with(held, stopped)
            span.set({"result": result})
            if result in ("buried", "handed_back"):
                span.fail(result)
        self._metrics.cohorts.labels(result).inc()

    async def _deal_with(self, held: _Held, stopped: asyncio.Task[bool]) -> str:
        delivery, request = held.delivery, held.delivery.task.request
        name = f"cohort {request.cohort.id} of run {delivery.task.run}"
        try:
            async with self._quarantine.turn(delivery.attempt):
                await self._engines.wait_ready()  # it may have been lost since the cohort was taken
                response = await self._judge.judge(request, priority=Priority.TRAINING, whole=True)
        except UnjudgeableError as error:
            held.judged = True
            log.warning("%s cannot be judged: %s", name, error)
            result = "buried" if await self._queue.bury(delivery, str(error)) else "superseded"
        except EngineError as error:
            log.warning("%s waits for the engine (attempt %d): %s", name, delivery.attempt, error)
            await asyncio.wait((stopped,), timeout=rest_s(delivery.attempt))
            result = await self._give_up(held, str(error))
        except Exception as error:
            log.exception("%s failed", name)
            result = await self._give_up(held, f"internal error {type(error).__name__}: {error}")
        else:
            held.judged = True
            with tracing.span("settle"):
                result = "settled" if await self._queue.settle(delivery, response) else "superseded"
        return result

    async def _give_up(self, held: _Held, error: str) -> str:
        held.judged = True
        await self._queue.hand_back(self._consumer, [held.delivery], error)
        return "handed_back"

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _RENEWALS)
            if not (before := dict(self._in_hand)):
                continue
            lost = await self._queue.renew(self._consumer, [held.delivery for held in before.values()])
            gone = {delivery.entry_id for delivery in lost}
            for task, held in before.items():
                if held.delivery.entry_id in gone and not held.judged and not task.done():
                    task.cancel()
                    self._metrics.cohorts.labels("superseded").inc()

    async def _drain(self) -> None:
        if self._in_hand:
            log.info("worker stopping: %d cohorts in hand, %g s for them", len(self._in_hand), self._grace_s)
            await asyncio.wait(self._in_hand, timeout=self._grace_s)
        rest = dict(self._in_hand)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        open_ = [*self._not_begun, *(held.delivery for held in rest.values() if not held.judged)]
        result = "left"
        with suppress(TimeoutError):  # Redis is away: they are left to their lease
            async with asyncio.timeout(_FAREWELL_S):
                if open_:
                    await self._queue.hand_back(self._consumer, open_)
                    result = "handed_back"
                await self._queue.leave(self._consumer)
        self._metrics.cohorts.labels(result).inc(len(open_))
        self._metrics.cohorts.labels("left").inc(sum(held.judged for held in rest.values()))


async def _unless(
    stopped: asyncio.Task[bool], event: Coroutine[Any, Any, ResultT], *, patience_s: float = 0.0
) -> ResultT | None:
    """What comes of `event`; None if `stopped` came first, and it did not come within `patience_s` of that."""
    waiting = asyncio.create_task(event)
    try:
        await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and patience_s:
            await asyncio.wait((waiting,), timeout=patience_s)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
