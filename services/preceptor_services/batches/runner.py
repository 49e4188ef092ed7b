"""The batch runner: items from the store, results back to it, beside the service's own requests.

    store.take -> judge (up to `concurrency` items at once) -> store.settle
                  store.renew, while it lasts

In: items of batches. Out: one result per item: the judge's response, or the problem that kept it from being judged.
Guarantees: takes only what it can start at once, and only while the engine is ready. Rides through a Redis that goes
away and comes back. An item whose engine is lost is given back and judged again, so that no verdict fails because of
an outage, and begun `max_deliveries` times at most: one that ends whoever judges it gets a problem. An item that its
batch no longer needs is given up; when the runner itself is cancelled, what is in hand is given back at once, so that
another replica, or this one after its restart, goes on with it. A process that dies leaves its items to their lease.
Waits for: the engine to be ready, a free place, an item; each is woken by its event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus

from pydantic import ValidationError
from redis.exceptions import RedisError

from preceptor_client.config import describe
from preceptor_client.contract import BatchResult, JudgeRequest, JudgeResponse, Problem
from preceptor_client.queue import Ride
from preceptor_services.batches.store import BatchStore, Item
from preceptor_services.engine import EngineError
from preceptor_services.judging import UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine, rest_s

log = logging.getLogger(__name__)

_RENEWALS = 3
"""Per lease: a renewal that comes late, or is lost once, costs nothing."""


class BatchRunner:
    """Judges what the store holds, whose Redis `ride` rides. `judge` takes a request and its owner; `wait_ready`
    returns when the engine is ready."""

    def __init__(
        self,
        store: BatchStore,
        ride: Ride,
        quarantine: Quarantine,
        judge: Callable[[JudgeRequest, str], Awaitable[JudgeResponse]],
        wait_ready: Callable[[], Awaitable[None]],
        metrics: Metrics,
        *,
        concurrency: int,
        lease_s: float,
        max_deliveries: int,
    ) -> None:
        self._store = store
        self._riding_through = ride.through
        self._quarantine = quarantine
        self._judge = judge
        self._wait_ready = wait_ready
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._max_deliveries = max_deliveries
        self._in_hand: dict[asyncio.Task[None], Item] = {}

    async def run(self) -> None:
        """Work until cancelled. Raises QueueMisfit if waiting for this Redis does not help."""
        renewing = asyncio.create_task(self._keep_leases())
        try:
            while not renewing.done():
                await self._turn()
            renewing.result()  # raises what ended it: items without a lease would be judged again and again
        finally:
            renewing.cancel()
            await self._give_back()

    async def _turn(self) -> None:
        await self._wait_ready()
        if len(self._in_hand) == self._concurrency:
            await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
            return
        free = self._concurrency - len(self._in_hand)
        for item in await self._riding_through(lambda: self._store.take(free, self._lease_ms)):
            task = asyncio.create_task(self._handle(item))
            self._in_hand[task] = item
            task.add_done_callback(self._done)
        self._metrics.batch_items_in_hand.set(len(self._in_hand))

    @property
    def _lease_ms(self) -> int:
        return int(1000 * self._lease_s)

    def _done(self, task: asyncio.Task[None]) -> None:
        item = self._in_hand.pop(task, None)
        if item and not task.cancelled() and (error := task.exception()):
            log.error("item %d of batch %s is left to its lease", item.index, item.ref, exc_info=error)
        self._metrics.batch_items_in_hand.set(len(self._in_hand))

    async def _handle(self, item: Item) -> None:
        try:
            result = await self._result(item)
        except EngineError as error:
            log.warning("item %d of batch %s waits for the engine: %s", item.index, item.ref, error)
            reason = str(error)
            await asyncio.sleep(rest_s(item.attempt))
            await self._riding_through(lambda: self._store.release([item], reason))
            return
        stored = await self._riding_through(lambda: self._store.settle(item, result))
        kind = "superseded" if not stored else "judged" if result.problem is None else "problem"
        self._metrics.batch_items.labels(kind).inc()

    async def _result(self, item: Item) -> BatchResult:
        """What becomes of `item`. Raises EngineError if the engine was lost, and it is to be asked again."""
        if item.attempt > self._max_deliveries:
            what = item.last_error or "whoever judged it was gone before it had an answer"
            detail = f"begun {self._max_deliveries} times and never answered; the last time: {what}"
            return _problem(item, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
        try:
            request = JudgeRequest.model_validate_json(item.request)
            async with self._quarantine.turn(item.attempt):
                await self._wait_ready()  # it may have been lost since the item was taken
                return BatchResult(index=item.index, response=await self._judge(request, item.owner))
        except EngineError:
            raise
        except ValidationError as error:  # a service of another version took it in
            return _problem(item, HTTPStatus.UNPROCESSABLE_ENTITY, f"the item cannot be read:\n{describe(error)}")
        except UnjudgeableError as error:
            return _problem(item, HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Exception as error:
            # Left to its lease it would come back for ever, and its batch would never end.
            log.exception("item %d of batch %s failed", item.index, item.ref)
            return _problem(item, HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error {type(error).__name__}")

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _RENEWALS)
            self._metrics.batch_items_waiting.set(await self._riding_through(self._store.waiting))
            if held := dict(self._in_hand):
                renewal = partial(self._store.renew, [*held.values()], self._lease_ms)
                lost = await self._riding_through(renewal)
                for task, item in held.items():
                    if item in lost:
                        task.cancel()

    async def _give_back(self) -> None:
        held, items = [*self._in_hand], [*self._in_hand.values()]
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        if items:
            with suppress(RedisError):  # then their leases run out
                await self._store.release(items)


def _problem(item: Item, status: HTTPStatus, detail: str) -> BatchResult:
    problem = Problem(title=status.phrase, status=status.value, detail=detail)
    return BatchResult(index=item.index, problem=problem)
