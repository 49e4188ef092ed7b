"""From settings to a judge and the engines it asks: what the judge service, the rewrite service and the worker share.

In: `ServiceSettings`. Out: an `Assembly`; nothing is connected before `running` is entered, and nothing is left open
after it. Raises `RubricError` if the rubrics cannot be used. `Engines.wait_ready` waits for engines that answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from preceptor_services.cache import VerdictCache
from preceptor_services.engine import Engine, Generation
from preceptor_services.judging import Judge, Panel
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import RubricBook, load_rubrics
from preceptor_services.settings import FIRST, EngineSettings, ServiceSettings


class Engines:
    """The readiness of one engine, or of as many of a panel's as it needs."""

    def __init__(self, engines: Sequence[Engine], needed: int) -> None:
        self._engines = engines
        self._needed = needed

    @property
    def ready(self) -> bool:
        """Whether enough engines answer."""
        return sum(engine.ready for engine in self._engines) >= self._needed

    @property
    def known(self) -> bool:
        """Whether enough engines have ever answered."""
        return sum(engine.known for engine in self._engines) >= self._needed

    @property
    def trouble(self) -> str | None:
        """Why the engines that do not answer do not; None if all do."""
        troubles = [engine.trouble for engine in self._engines if engine.trouble is not None]
        return "; ".join(troubles) or None

    async def wait_ready(self) -> None:
        """Returns when enough engines answer, at once if they do."""
        while not self.ready:
            # Those that are away now: one that was there before may have been lost since.
            waiting = [asyncio.ensure_future(engine.wait_ready()) for engine in self._engines if not engine.ready]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()


@dataclass(frozen=True)
class Assembly:
    """A judge with all that it needs."""

    judge: Judge | Panel
    engine: Engine
    """The service's own, which also rewrites."""
    engines: Engines
    rubrics: RubricBook
    metrics: Metrics
    _watched: tuple[tuple[Engine, list[Generation]], ...]
    _cache: VerdictCache | None

    @asynccontextmanager
    async def running(self, *further: Generation) -> AsyncIterator[None]:
        """Engines open and watched, the cache connected. `further` kinds of request are tried on `engine` as well."""
        async with AsyncExitStack() as stack:
            if self._cache is not None:
                await stack.enter_async_context(self._cache)
            for engine, probes in self._watched:
                await stack.enter_async_context(engine)
                wanted = [*probes, *further] if engine is self.engine else probes
                stack.push_async_callback(_end, asyncio.create_task(engine.watch(wanted)))
            yield


def assemble(settings: ServiceSettings) -> Assembly:
    """The judge that `settings` describe: one, or a panel."""
    metrics = Metrics()
    rubrics = load_rubrics(*settings.rubrics)
    metrics.know_axes(rubrics.axes)
    cache = None
    if settings.cache.enabled and settings.store.url is not None:
        cache = VerdictCache(
            settings.store.url, metrics, namespace=settings.store.namespace, ttl_s=settings.cache.ttl_s
        )

    def judge_on(engine_settings: EngineSettings, book: RubricBook) -> tuple[Engine, Judge]:
        engine = Engine(engine_settings, metrics)
        return engine, Judge(engine, book, settings.judging, metrics, cache)

    made = {FIRST: judge_on(settings.engine, rubrics)}
    for name, member in settings.panel.members.items():
        made[name] = judge_on(member.engine, load_rubrics(*member.rubrics))
    engine, judge = made[FIRST]
    judges = {name: own for name, (_, own) in made.items()}
    return Assembly(
        judge=Panel(judges, settings.panel) if settings.panel.members else judge,
        engine=engine,
        engines=Engines([own for own, _ in made.values()], settings.panel.quorum or len(made)),
        rubrics=rubrics,
        metrics=metrics,
        _watched=tuple((own, judges[name].probes) for name, (own, _) in made.items()),
        _cache=cache,
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
