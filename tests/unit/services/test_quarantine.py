"""Turns over several processes, each a `Quarantine` with a connection of its own, on a real Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from preceptor_client.queue import connect
from preceptor_services.quarantine import Quarantine, rest_s

LEASE_S = 0.6


@pytest.fixture
async def processes(redis_url: str) -> AsyncIterator[list[Quarantine]]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    async with connect(redis_url) as one, connect(redis_url) as other:
        yield [Quarantine(redis, namespace=namespace, lease_s=LEASE_S) for redis in (one, other)]


async def test_suspects_are_judged_one_at_a_time_over_all_processes(processes: list[Quarantine]) -> None:
    at_work, most = 0, 0

    async def judged(quarantine: Quarantine) -> None:
        nonlocal at_work, most
        async with quarantine.turn(3):
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0.01)
            at_work -= 1

    async with asyncio.timeout(20):
        await asyncio.gather(*(judged(quarantine) for quarantine in processes * 4))
    assert most == 1


async def test_whoever_is_not_suspected_does_not_wait(processes: list[Quarantine]) -> None:
    async with asyncio.timeout(10), processes[0].turn(3):
        for attempt in (1, 2):
            async with processes[1].turn(attempt):
                pass


async def test_a_turn_lasts_as_long_as_it_takes_and_one_that_was_left_behind_ends(processes: list[Quarantine]) -> None:
    first, second = processes
    entered = asyncio.Event()

    async def enter() -> None:
        async with second.turn(3):
            entered.set()

    async with asyncio.timeout(20):
        async with first.turn(3):
            entering = asyncio.create_task(enter())
            await asyncio.sleep(2 * LEASE_S)
            assert not entered.is_set(), "it was kept"
            await first._redis.delete(first._name)  # as if this process had died, and its lease had run out
            await entering
        assert entered.is_set(), "and whoever finds its turn gone ends as always"


def test_rests_grow_with_the_attempts_and_have_a_bound() -> None:
    for attempt in range(1, 40):
        assert 0 < rest_s(attempt) <= 16
    assert rest_s(1) < rest_s(3)
