"""What Prometheus finds at the port of a run that is at work, and paused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from preceptor_client.stack.probes import claim_port
from preceptor_trainer.run import run
from rule_judge import by_rule, judge, share_of_good_words
from tiny_run import tiny_run, until


async def test_a_run_can_be_scraped_while_it_trains_and_while_a_guard_has_it_paused(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    port = claim_port(None)
    guard = {"above": 0.1, "warn_after": 1, "act_after": 3, "action": "pause"}
    settings = tiny_run(tmp_path, redis_url)(steps=1000, metrics={"port": port}, guards={"length": guard})
    stop = asyncio.Event()
    async with judge(redis, by_rule(share_of_good_words)), httpx.AsyncClient() as client:
        ended = asyncio.create_task(run(settings, stop=stop))

        async def scraped() -> dict[tuple[str, ...], float]:
            """By name and values of the labels, in the labels' order of names."""
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            except httpx.ConnectError:
                assert not ended.done(), ended.result()
                return {}
            families = text_string_to_metric_families(answer.text)
            return {
                (
                    sample.name.removeprefix("preceptor_trainer_"),
                    *dict(sorted(sample.labels.items())).values(),
                ): sample.value
                for family in families
                for sample in family.samples
            }

        async def shows(name: str, at_least: float) -> bool:
            return (await scraped()).get((name,), 0) >= at_least

        await until(lambda: shows("updates_total", 1))
        at_work = await scraped()
        await until(lambda: shows("paused", 1))
        paused = await scraped()
        stop.set()
        assert await ended is False

    assert at_work["info", "torch", "dpo", "test"] == 1
    assert at_work["buffer_slots",] == 8
    assert at_work["score_ratio", "quality", "rollout"] > 0
    assert at_work["tokens_total", "sampling"] > 0
    assert paused["updates_total",] == paused["step",] >= 3
    assert paused["guard_alarms_total", "warn", "length"] == paused["guard_alarms_total", "pause", "length"] == 1
    assert paused["guard_reading", "length"] > 0.1
    assert paused["cohorts_total", "trained"] == 4 * paused["updates_total",]
    assert paused["verdicts_total", "ok"] >= 4 * 4 * 3
    assert paused["discrimination_ratio_count",] >= 12
    assert paused["stage_seconds_count", "saving"] == 1
    assert paused["buffer_cohorts", "outstanding"] == paused["buffer_cohorts", "ready"] == 0
    assert not await _answers(port)


async def _answers(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            await client.get(f"http://127.0.0.1:{port}/metrics")
        except httpx.ConnectError:
            return False
    return True
