from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from preceptor_services.brief_redis import brief_redis
from preceptor_services.keys import ANONYMOUS, Caller
from preceptor_services.limits import (
    Buckets,
    Draw,
    Limits,
    LocalBuckets,
    OverLimitError,
    SharedBuckets,
    retry_after_s,
)
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def refusal(limits: Limits, caller: Caller, *, makes_work: bool = True) -> OverLimitError | None:
    """What a request of `caller` that is over at once is told."""
    try:
        if makes_work:
            async with limits.place(caller):
                return None
        await limits.count(caller, makes_work=False)
    except OverLimitError as error:
        return error
    return None


async def test_a_minutes_requests_may_come_at_once_then_at_their_rate() -> None:
    clock = Clock()
    limits = Limits(LocalBuckets(clock), 100)
    caller = Caller("a", Priority.BULK, requests_per_minute=7)
    assert [await refusal(limits, caller) for _ in range(7)] == [None] * 7
    for _ in range(3):
        refused = await refusal(limits, caller)
        assert refused is not None
        assert refused.wait_s == pytest.approx(60 / 7)
        assert retry_after_s(refused.wait_s) == 9
        assert "7 requests a minute" in str(refused)
        clock.now += refused.wait_s
        assert await refusal(limits, caller) is None
    assert await refusal(limits, Caller("b", Priority.BULK, requests_per_minute=7)) is None


async def test_tokens_are_charged_afterwards_and_a_debt_is_waited_off() -> None:
    clock = Clock()
    limits = Limits(LocalBuckets(clock), 100)
    caller = Caller("a", Priority.BULK, tokens_per_minute=100)
    await limits.charge(caller, 99)
    assert await refusal(limits, caller) is None
    await limits.charge(caller, 301)
    refused = await refusal(limits, caller)
    assert refused is not None
    assert refused.reason == "tokens"
    assert refused.wait_s == pytest.approx(180.6)  # 300 of debt, and one to spend
    assert await refusal(limits, caller, makes_work=False) is None
    clock.now += refused.wait_s
    assert await refusal(limits, caller) is None


async def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    limits = Limits(LocalBuckets(clock), 100)
    caller = Caller("a", Priority.BULK, requests_per_minute=60, tokens_per_minute=60)
    await limits.charge(caller, 60)
    assert {(await refusal(limits, caller)) is None for _ in range(100)} == {False}
    clock.now += 1.0
    assert [await refusal(limits, caller) for _ in range(60)] == [None] * 60


@given(st.integers(1, 10_000), st.lists(st.floats(0, 30), max_size=60))
async def test_no_minute_sees_more_than_two_minutes_worth(rate: int, pauses: list[float]) -> None:
    clock = Clock()
    limits = Limits(LocalBuckets(clock), 100)
    caller = Caller("a", Priority.BULK, requests_per_minute=rate)
    let_in: list[float] = []
    for pause in pauses:
        clock.now += pause
        if await refusal(limits, caller) is None:
            let_in.append(clock.now)
    for start in let_in:
        assert sum(start <= at < start + 60 for at in let_in) <= 2 * rate


async def test_a_key_has_its_share_of_what_is_in_work() -> None:
    limits = Limits(LocalBuckets(), 100)
    caller = Caller("a", Priority.INTERACTIVE, concurrency=2)
    async with limits.place(caller), limits.place(caller):
        refused = await refusal(limits, caller)
        assert refused is not None
        assert (refused.reason, refused.shared) == ("concurrency", False)
        assert await refusal(limits, ANONYMOUS) is None
    assert await refusal(limits, caller) is None


async def test_less_urgent_work_never_fills_the_service() -> None:
    limits = Limits(LocalBuckets(), 4)
    training, bulk = Caller("t", Priority.TRAINING), Caller("b", Priority.BULK)
    async with limits.place(training), limits.place(training):
        assert (refused := await refusal(limits, training)) is not None
        assert refused.shared
        async with limits.place(bulk):
            assert await refusal(limits, bulk) is not None
            async with limits.place(ANONYMOUS):
                assert await refusal(limits, ANONYMOUS) is not None
    assert await refusal(limits, training) is None


async def test_a_request_that_fails_gives_its_place_back() -> None:
    limits = Limits(LocalBuckets(), 1)
    with pytest.raises(ZeroDivisionError):
        async with limits.place(ANONYMOUS):
            raise ZeroDivisionError
    limited = Caller("a", Priority.INTERACTIVE, requests_per_minute=1)
    assert await refusal(limits, limited) is None
    assert await refusal(limits, limited) is not None
    assert await refusal(limits, ANONYMOUS) is None


async def test_processes_share_rates_in_redis(redis: Redis, metrics: Metrics) -> None:
    one, other = (Limits(SharedBuckets(redis, "test", metrics), 100) for _ in range(2))
    caller = Caller("a", Priority.BULK, requests_per_minute=2, tokens_per_minute=60)
    assert [await refusal(limits, caller) for limits in (one, other)] == [None, None]
    refused = await refusal(one, caller)
    assert refused is not None
    assert refused.reason == "requests"
    assert 25 < refused.wait_s <= 30
    await one.charge(caller, 600)
    refused = await refusal(other, caller)
    assert refused is not None
    assert refused.reason == "tokens"
    assert 530 < refused.wait_s <= 541
    keys = [key async for key in redis.scan_iter()]
    assert {key.partition("}")[0] for key in keys} == {"{test:limits"}
    assert all([0 < await redis.pttl(key) <= 600_000 for key in keys])


async def test_both_kinds_of_buckets_wait_alike(redis: Redis, metrics: Metrics) -> None:
    kinds: list[Buckets] = [LocalBuckets(), SharedBuckets(redis, "alike", metrics)]
    draws = [Draw("x", 20.0, 20.0), Draw("y", 90.0), Draw("y", 0.0, 1.0), Draw("x", 40.0, 40.0), Draw("x", 1.0, 1.0)]
    for draw in draws:
        local, shared = [await kind.draw([draw]) for kind in kinds]
        assert shared == [pytest.approx(local[0], abs=2.0)]
        assert bool(shared[0]) == bool(local[0])


async def test_without_redis_every_process_limits_by_itself(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        redis = brief_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        limits = Limits(SharedBuckets(redis, "test", metrics), 100)
        caller = Caller("a", Priority.BULK, requests_per_minute=3)
        assert [await refusal(limits, caller) for _ in range(3)] == [None] * 3
        assert await refusal(limits, caller) is not None
        await redis.aclose()
    assert caplog.text.count("Redis is away") == 1
    assert b"preceptor_limit_errors_total 1.0" in metrics.exposition()
