"""The worker's process: connects the judge, the queue and, if asked for, a port with its metrics and health.

In: `ServiceSettings`. Returns after `stop`, when what was in hand is settled or handed back. Raises `QueueMisfit` when
the Redis cannot serve, `RubricError`, `ServingError`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from redis.asyncio import Redis

from preceptor_client.collector import collect_less
from preceptor_client.queue import CohortQueue, QueueMisfit, QueueOperations, QueueUnavailable, check_redis, connect
from preceptor_services.assembly import Engines, assemble
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine
from preceptor_services.serving import listen, serve
from preceptor_services.settings import QueueSettings, ServiceSettings
from preceptor_services.troubles import Troubles
from preceptor_services.web import base_app
from preceptor_services.worker import Worker

log = logging.getLogger(__name__)

_DEPTH_EVERY_S = 5.0


@dataclass(frozen=True)
class _Readiness:
    """Of a worker: its engine answers, and so does its queue."""

    engines: Engines
    troubles: Troubles

    @property
    def ready(self) -> bool:
        return self.engines.ready and self.troubles.trouble is None

    @property
    def known(self) -> bool:
        return self.engines.known

    @property
    def trouble(self) -> str | None:
        return "; ".join(filter(None, (self.engines.trouble, self.troubles.trouble))) or None


async def work(settings: ServiceSettings, stop: asyncio.Event) -> None:
    """Judge what the queue brings until `stop`."""
    collect_less()
    parts = assemble(settings)
    queue = settings.queue
    troubles = Troubles("queue", parts.metrics)
    async with AsyncExitStack() as resources:
        redis = await resources.enter_async_context(connect(queue.url))
        await _look_at(redis, queue)
        app = base_app(
            "Preceptor worker",
            "Metrics and health of a judge worker.",
            _Readiness(parts.engines, troubles),
            parts.metrics,
            max_body_bytes=4096,
        )
        await resources.enter_async_context(parts.running())
        worker = Worker(
            CohortQueue(redis, namespace=queue.namespace, max_deliveries=queue.max_deliveries, on_trouble=troubles),
            parts.judge,
            parts.engines,
            Quarantine(redis, namespace=queue.namespace, lease_s=queue.lease_s),
            parts.metrics,
            concurrency=queue.concurrency,
            lease_s=queue.lease_s,
            grace_s=queue.grace_s,
        )
        measuring = asyncio.create_task(_measure(QueueOperations(redis, namespace=queue.namespace), parts.metrics))
        resources.callback(measuring.cancel)
        if queue.metrics_port is None:
            await worker.run(stop)
            return
        finished = asyncio.Event()
        listener = listen(queue.metrics_host, queue.metrics_port)
        serving = asyncio.create_task(serve(app, listener, finished))
        try:
            await worker.run(stop)
        finally:
            finished.set()
            await serving


async def _look_at(redis: Redis, settings: QueueSettings) -> None:
    """Say what is amiss with the queue's Redis, if it is there: one that is away is waited for."""
    try:
        warnings = await check_redis(redis, namespace=settings.namespace)
    except QueueUnavailable:
        return
    for warning in warnings:
        log.warning("%s", warning)


async def _measure(operations: QueueOperations, metrics: Metrics) -> None:
    """Show how full the queue is, for ever."""
    while True:
        try:
            status = await operations.status()
        except (QueueUnavailable, QueueMisfit) as error:  # the worker meets them as well
            log.debug("the queue cannot be measured: %s", error)
        else:
            metrics.show_queue(status)
        await asyncio.sleep(_DEPTH_EVERY_S)
