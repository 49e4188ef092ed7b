"""The verdict cache on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from preceptor_client.contract import JudgeRequest, Sampling
from preceptor_client.stack import claim_port
from preceptor_services.cache import VerdictCache, cache_key
from preceptor_services.engine import Answer, Engine, Generation, Prompt, Served, Teacher
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings, Reasoning

OpenEngine = Callable[..., Awaitable[Engine]]
SERVED = Served(Teacher("teacher", "r1"))
THINKING: tuple[Reasoning, int] = ("none", 0)
GENERATION = Generation(endpoint="completion", max_tokens=1, labels=("safe", "unsafe"), constraint="tokens")
ANSWER = Answer(texts=(" safe", "unsafe\u2028"), reasoning=(None, "hm"), cut_off=(True, False), bound=True)


@pytest.fixture
async def cache(redis: Redis, redis_url: str, metrics: Metrics) -> AsyncIterator[VerdictCache]:
    async with VerdictCache(redis_url, metrics, namespace="test", ttl_s=60) as cache:
        yield cache


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples]
    return next((s.value for s in samples if s.name == name and s.labels == labels), 0.0)


async def test_what_was_put_is_found_for_its_time(cache: VerdictCache, redis: Redis) -> None:
    await cache.put({"a": ANSWER})
    assert await cache.get(["b", "a"]) == [None, ANSWER]
    (key,) = await redis.keys("*")
    assert key == "test:verdict:a"
    assert 0 < await redis.ttl(key) <= 60


async def test_an_entry_that_is_none_is_a_miss(cache: VerdictCache, redis: Redis) -> None:
    for number, content in enumerate(["", "[]", "{}", "[1, 2, 3, 4]", "\x00"]):
        await redis.set(f"test:verdict:{number}", content)
    assert await cache.get([str(number) for number in range(5)]) == [None] * 5


def test_a_key_stands_for_all_that_decides_an_answer() -> None:
    prompt = Prompt("text", "system")
    keys = {
        cache_key(SERVED, THINKING, "rubric", prompt, GENERATION),
        cache_key(Served(Teacher("teacher", "r2")), THINKING, "rubric", prompt, GENERATION),
        cache_key(Served(Teacher("other", "r1")), THINKING, "rubric", prompt, GENERATION),
        cache_key(replace(SERVED, root="org/other"), THINKING, "rubric", prompt, GENERATION),
        cache_key(SERVED, ("parsed", 1024), "rubric", prompt, GENERATION),
        cache_key(SERVED, ("parsed", 2048), "rubric", prompt, GENERATION),
        cache_key(SERVED, THINKING, "other", prompt, GENERATION),
        cache_key(SERVED, THINKING, "rubric", Prompt("text"), GENERATION),
        cache_key(SERVED, THINKING, "rubric", Prompt("other", "system"), GENERATION),
        *(
            cache_key(SERVED, THINKING, "rubric", prompt, replace(GENERATION, **change))
            for change in ({"n": 2}, {"temperature": 0.5}, {"top_p": 0.5}, {"seed": 1}, {"max_tokens": 2})
        ),
    }
    assert len(keys) == 14
    assert cache_key(SERVED, THINKING, "rubric", Prompt("text", "system"), GENERATION) in keys


def request(**fields: object) -> JudgeRequest:
    candidates = [{"id": "a", "text": "good"}, {"id": "b", "text": "bad"}]
    cohort = {"id": "cohort", "prefix": "p", "candidates": candidates}
    return JudgeRequest.model_validate({"cohort": cohort, **fields})


async def test_a_question_is_put_to_the_teacher_once(
    open_engine: OpenEngine, faulty_server: type, metrics: Metrics, cache: VerdictCache
) -> None:
    engine = await open_engine(server := faulty_server())
    judge = Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics, cache)
    first = await judge.judge(request())
    asked = len(server.bodies)
    again = await judge.judge(request())
    assert (first.usage.calls, first.usage.cached) == (6, 0)
    assert (again.usage.calls, again.usage.cached, again.usage.prompt_tokens) == (0, 6, 0)
    assert again.verdicts == first.verdicts
    assert len(server.bodies) == asked
    assert (counted(metrics, "preceptor_verdict_cache_lookups_total", result="hit")) == 6
    bypassed = await judge.judge(request(cache="bypass"))
    assert (bypassed.usage.calls, bypassed.usage.cached) == (6, 0)
    other = await judge.judge(request(sampling=Sampling(temperature=0.5)))
    assert other.usage.cached == 0


async def test_neither_failures_nor_unreadable_answers_are_kept(
    open_engine: OpenEngine, faulty_server: type, metrics: Metrics, cache: VerdictCache, redis: Redis
) -> None:
    engine = await open_engine(faulty_server(answer=lambda _: "?", refused_words=frozenset({"<quality>"})))
    judge = Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics, cache)
    response = await judge.judge(request())
    assert all(verdict.score is None for verdict in response.verdicts)
    assert await redis.keys("*") == []


async def test_a_redis_that_is_away_costs_the_cache_and_nothing_else(
    open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(faulty_server())
    async with VerdictCache(f"redis://127.0.0.1:{claim_port()}/0", metrics, namespace="test", ttl_s=60) as cache:
        judge = Judge(engine, load_rubrics("nano"), JudgingSettings(), metrics, cache)
        responses = await asyncio.gather(*(judge.judge(request()) for _ in range(4)))
    assert all(verdict.score is not None for response in responses for verdict in response.verdicts)
    assert counted(metrics, "preceptor_verdict_cache_errors_total") >= 1
