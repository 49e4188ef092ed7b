"""The worker's process: connects the judge, the queue and, if asked for, a port with its metrics and health.

In: `ServiceSettings`. Returns after `stop`, when what was in hand is settled.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from preceptor_client.queue import CohortQueue, connect
from preceptor_services.assembly import assemble
from preceptor_services.serving import listen, serve
from preceptor_services.settings import ServiceSettings
from preceptor_services.web import base_app
from preceptor_services.worker import Worker

_PATIENCE_S = 2.0
"""Of one call to Redis. The worker repeats it for as long as it takes, and sees in between whether it is to stop."""


async def work(settings: ServiceSettings, stop: asyncio.Event) -> None:
    """Judge what the queue brings until `stop`. Raises RubricError, ServingError."""
    parts = assemble(settings)
    async with AsyncExitStack() as resources:
        app = base_app(
            "Preceptor worker",
            "Metrics and health of a judge worker.",
            parts.engines,
            parts.metrics,
            max_body_bytes=4096,
        )
        await resources.enter_async_context(parts.running())
        redis = connect(settings.queue.url, patience_s=_PATIENCE_S)
        resources.push_async_callback(redis.aclose)
        worker = Worker(
            CohortQueue(redis, bound=settings.queue.bound, namespace=settings.queue.namespace),
            parts.judge,
            parts.engines,
            parts.metrics,
            concurrency=settings.queue.concurrency,
            deadline_s=settings.judging.deadline_s,
        )
        if settings.queue.metrics_port is None:
            await worker.run(stop)
            return
        finished = asyncio.Event()
        listener = listen(settings.queue.metrics_host, settings.queue.metrics_port)
        serving = asyncio.create_task(serve(app, listener, finished))
        try:
            await worker.run(stop)
        finally:
            finished.set()
            await serving
