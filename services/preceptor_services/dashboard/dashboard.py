"""The dashboard of one service: its page and its runs, put together.

In: settings, and which service it is. Out: routers for the app, and `running` for its lifetime. Connects at the first
request for a run, and waits for Redis no longer than a moment. Raises `QueueMisfit` if `queue.url` is none of a Redis.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import APIRouter

from preceptor_client.board import BoardReader
from preceptor_client.masking import shown
from preceptor_client.queue import QueueOperations, redis_from_url
from preceptor_services.dashboard.page import About, page_router
from preceptor_services.dashboard.runs import runs_router
from preceptor_services.settings import ServiceSettings

_PATIENCE_S = 2.0


class Dashboard:
    """What the app of `service` has for people."""

    def __init__(self, settings: ServiceSettings, service: Literal["judge", "rewrite"]) -> None:
        self._enabled = settings.dashboard.enabled
        self._about = About(
            service=service,
            keys=settings.auth.keys_file is not None,
            judge_url=settings.dashboard.judge_url,
            rewrite_url=settings.dashboard.rewrite_url,
        )
        self._where = shown(settings.queue.url)
        self._redis = redis_from_url(
            settings.queue.url,
            decode_responses=True,
            encoding_errors="surrogateescape",
            socket_timeout=_PATIENCE_S,
            socket_connect_timeout=_PATIENCE_S,
        )
        namespace = settings.queue.namespace
        self._board = BoardReader(self._redis, namespace=namespace)
        self._operations = QueueOperations(self._redis, namespace=namespace)

    @property
    def routers(self) -> list[APIRouter]:
        """Its routes; none if it is switched off."""
        if not self._enabled:
            return []
        return [page_router(self._about), runs_router(self._board, self._operations, self._where)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Its connection is closed at the end."""
        async with self._redis:
            yield
