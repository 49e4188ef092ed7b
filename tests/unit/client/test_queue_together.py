"""Callers that share a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from preceptor_client.queue.together import Together


class Doubling:
    """A call that says when it has begun, ends when it is let go, and fails for negative numbers."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        self.begun.release()
        await self.go.acquire()
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]


async def begin(together: Together[int, int], call: Doubling, *numbers: int) -> list[asyncio.Task[int]]:
    """A call with the first of them under way, while the others wait."""
    tasks = [asyncio.create_task(together(number)) for number in numbers]
    await call.begun.acquire()
    return tasks


async def test_who_comes_alone_is_served_at_once_and_the_others_together() -> None:
    together = Together(call := Doubling())
    tasks = await begin(together, call, 1, 2, 3, 4)
    call.go.release()
    await call.begun.acquire()
    call.go.release()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert call.calls == [[1], [2, 3, 4]]
    [alone] = await begin(together, call, 5)
    call.go.release()
    assert await alone == 10


async def test_who_is_cancelled_takes_only_its_own_item_with_it() -> None:
    together = Together(call := Doubling())
    first, caller, other, follower = await begin(together, call, 1, 2, 3, 4)
    call.go.release()
    await call.begun.acquire()
    caller.cancel()
    await call.begun.acquire()
    follower.cancel()
    call.go.release()
    results = await asyncio.gather(first, caller, other, follower, return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [2, 6]
    assert call.calls == [[1], [2, 3, 4], [3, 4]]
    [later] = await begin(together, call, 7)
    call.go.release()
    assert await later == 14


async def test_a_call_that_fails_fails_for_the_one_who_made_it_and_the_others_go_again() -> None:
    together = Together(call := Doubling())
    first, bad, good = await begin(together, call, 1, -1, 2)
    for _ in range(3):
        call.go.release()
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert [await first, await good] == [2, 4]
    assert call.calls == [[1], [-1, 2], [2]]
