"""The batches of a judge service: store, runner and routes, put together.

In: settings, a judge and its engines, who may call. Out: a router for the app, and `running` for its lifetime. Items
are judged behind whoever waits for an answer, and what they cost is charged to the caller who submitted them. Without
`store.url` nothing runs, and the routes say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from preceptor_client.contract import JudgeRequest, JudgeResponse
from preceptor_client.queue import QueueMisfit, Ride, redis_from_url
from preceptor_services.assembly import Assembly
from preceptor_services.auth import Access
from preceptor_services.batches.routes import batches_router
from preceptor_services.batches.runner import BatchRunner
from preceptor_services.batches.store import BatchStore
from preceptor_services.keys import ANONYMOUS
from preceptor_services.logs import log_texts
from preceptor_services.priority import Priority
from preceptor_services.quarantine import Quarantine
from preceptor_services.settings import ServiceSettings
from preceptor_services.troubles import Troubles

log = logging.getLogger(__name__)

_RETRIES = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
"""Of one call to Redis: about 1.4 s, then a caller is told to come back."""
_BLOCK_S = 1.0
"""How long the store's blocking reads wait."""


class Batches:
    """`/v1/batches` of one app."""

    def __init__(self, settings: ServiceSettings, parts: Assembly, access: Access) -> None:
        self._parts = parts
        self._access = access
        self._settings = settings.batches
        self._namespace = settings.store.namespace
        url = settings.store.url
        self._redis: Redis | None = None
        self._store: BatchStore | None = None
        if url is not None:
            self._redis = redis_from_url(
                url,
                decode_responses=True,
                socket_timeout=_BLOCK_S + 4,
                socket_connect_timeout=2.0,
                retry=Retry(ExponentialBackoff(cap=_LONGEST_PAUSE_S, base=_FIRST_PAUSE_S), _RETRIES),
            )
            self._store = BatchStore(
                self._redis,
                namespace=settings.store.namespace,
                ttl_s=settings.batches.ttl_s,
                max_waiting=settings.batches.max_waiting,
            )

    @property
    def router(self) -> APIRouter:
        """Its routes."""
        return batches_router(self._store)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Batches are worked off."""
        if self._store is None or self._redis is None:
            yield
            return
        runner = BatchRunner(
            self._store,
            Ride(self._redis, on_trouble=Troubles("batches", self._parts.metrics)),
            Quarantine(self._redis, namespace=self._namespace, lease_s=self._settings.lease_s),
            self._judge,
            self._parts.engines.wait_ready,
            self._parts.metrics,
            concurrency=self._settings.concurrency,
            lease_s=self._settings.lease_s,
            max_deliveries=self._settings.max_deliveries,
        )
        async with self._redis:
            running = asyncio.create_task(_work_off(runner))
            try:
                yield
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def _judge(self, request: JudgeRequest, owner: str) -> JudgeResponse:
        caller = (self._access.keys and self._access.keys.named(owner)) or ANONYMOUS
        response = await self._parts.judge.judge(request, priority=max(Priority.BULK, caller.priority), whole=True)
        log_texts(request, response)
        await self._access.charge(caller, response.usage.tokens)
        return response


async def _work_off(runner: BatchRunner) -> None:
    """Work until cancelled, or until it is clear that this Redis cannot serve: requests are answered all the same."""
    try:
        await runner.run()
    except QueueMisfit as error:
        log.error("no batch is worked off until this service is restarted: %s", error)
    except Exception:
        log.exception("no batch is worked off until this service is restarted")
