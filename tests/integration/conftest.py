"""The cohort queue on a connection to the session's Redis; tests that need another have fixtures of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from preceptor_client.queue import CohortQueue, QueueOperations, connect


@pytest.fixture
async def connection(redis: Redis, redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with connect(f"{redis_url}?protocol={getattr(request, 'param', 3)}") as connection:
        yield connection


@pytest.fixture
async def queue(connection: Redis) -> CohortQueue:
    queue = CohortQueue(connection, bound=4)
    await queue.open_group()
    return queue


@pytest.fixture
def operations(connection: Redis) -> QueueOperations:
    return QueueOperations(connection)
