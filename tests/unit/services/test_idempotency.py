from __future__ import annotations

import asyncio

import pytest

from preceptor_services.idempotency import KeyReusedError, Replays


class Work:
    """Counts how often it is done; waits for `go` if it is given."""

    def __init__(self, go: asyncio.Event | None = None) -> None:
        self.done = 0
        self._go = go

    async def __call__(self) -> int:
        self.done += 1
        if self._go is not None:
            await self._go.wait()
        return self.done


async def test_a_finished_request_is_replayed() -> None:
    replays, work = Replays[int](8), Work()
    assert await replays.once("key", b"1", work) == (1, False)
    assert await replays.once("key", b"1", work) == (1, True)
    assert await replays.once("other", b"1", work) == (2, False)


async def test_a_result_that_is_not_worth_keeping_is_worked_out_again() -> None:
    replays, work = Replays[int](8, keep=lambda result: result > 1), Work()
    assert await replays.once("key", b"1", work) == (1, False)
    assert await replays.once("key", b"1", work) == (2, False)
    assert await replays.once("key", b"1", work) == (2, True)


async def test_a_duplicate_in_flight_shares_the_computation() -> None:
    go = asyncio.Event()
    replays, work = Replays[int](8), Work(go)
    both = [asyncio.create_task(replays.once("key", b"1", work)) for _ in range(2)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*both) == [(1, False), (1, True)]


async def test_the_work_goes_on_when_its_client_hangs_up() -> None:
    go = asyncio.Event()
    replays, work = Replays[int](8), Work(go)
    client = asyncio.create_task(replays.once("key", b"1", work))
    await asyncio.sleep(0)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    go.set()
    assert await replays.once("key", b"1", work) == (1, True)


async def test_a_failure_is_tried_again() -> None:
    replays = Replays[int](8)

    async def failing() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await replays.once("key", b"1", failing)
    assert await replays.once("key", b"1", Work()) == (1, False)


async def test_a_key_belongs_to_one_request() -> None:
    replays = Replays[int](8)
    await replays.once("key", b"1", Work())
    with pytest.raises(KeyReusedError, match="'key' came with a different request"):
        await replays.once("key", b"2", Work())


async def test_at_the_bound_the_oldest_result_goes() -> None:
    replays = Replays[int](2)
    works = {key: Work() for key in "abc"}
    for key in "ab":
        await replays.once(key, b"1", works[key])
    await replays.once("a", b"1", works["a"])
    await replays.once("c", b"1", works["c"])
    for key in "acb":
        await replays.once(key, b"1", works[key])
    assert {key: work.done for key, work in works.items()} == {"a": 1, "b": 2, "c": 1}
