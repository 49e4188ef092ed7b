"""Control tokens in the real loop, on a real Redis, judged by a rule for each axis: the right outcome is known."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from redis.asyncio import Redis
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_client.contract import JudgeRequest
from preceptor_client.queue import CohortQueue, Delivery
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.stream import held_out
from preceptor_trainer.errors import TrainError
from preceptor_trainer.evaluation.generation import generate
from preceptor_trainer.run import run
from rule_judge import Settle, answer, judge, share_of_good_words
from tiny_run import Build, metrics, tiny_run

GOOD = {"token": "<good>", "share": 0.5, "axes": {"quality": 1.0}}
BAD = {"token": "<bad>", "share": 0.5, "axes": {"safety": 1.0}}
PREFIXES = 100


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Build:
    return tiny_run(tmp_path, redis_url)


def by_axis(seen: list[JudgeRequest]) -> Settle:
    """Good words are good for quality, and bad for safety."""

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        request = delivery.task.request
        seen.append(request)
        sign = 1 if request.axes == ("quality",) else -1
        response = answer(request, lambda text: (1 - sign) / 2 + sign * share_of_good_words(text))
        await queue.settle(delivery, response)

    return settle


def written_behind(config: TrainConfig, control: str) -> float:
    """Share of good words in what the trained policy writes behind `control`."""
    final = config.out / "final"
    codec = Codec(AutoTokenizer.from_pretrained(final))
    model = AutoModelForCausalLM.from_pretrained(final)
    data = DataConfig(path=config.data.path, prefix_tokens=8, suffix_tokens=6)
    windows = held_out(data, codec.encode, PREFIXES, print)
    return fmean(share_of_good_words(each.text) for each in generate(model, codec, windows, control=control))


async def test_one_policy_learns_opposite_things_behind_two_tokens_that_the_judge_never_sees(
    redis: Redis, config: Build
) -> None:
    settings = config(controls=[GOOD, BAD], steps=40, cohorts_per_step=8)
    seen: list[JudgeRequest] = []
    async with judge(redis, by_axis(seen)):
        await run(settings)
    good, bad = [await asyncio.to_thread(written_behind, settings, token) for token in ("<good>", "<bad>")]
    assert good > bad + 0.3
    assert {request.axes for request in seen} == {("quality",), ("safety",)}
    assert all("<" not in request.cohort.prefix for request in seen)
    last = metrics(settings)[-10:]
    for token, axis in (("<good>", "quality"), ("<bad>", "safety")):
        assert fmean(line["controls"][token]["scores"][axis] for line in last) > 0.6


async def test_originals_are_preferred_behind_one_token_and_nobody_is_asked(redis: Redis, config: Build) -> None:
    raw = {"token": "w50", "share": 0.5, "prefer": ["original", "rollout"]}
    settings = config(controls=[GOOD, raw], steps=6)
    seen: list[JudgeRequest] = []
    async with judge(redis, by_axis(seen)):
        await run(settings)
    counted = [line["controls"].get("w50", {"cohorts": 0})["cohorts"] for line in metrics(settings)]
    assert 0 < sum(counted) < 24
    assert all(settings.prefer(request.cohort.id) is None for request in seen)


async def test_a_deterministic_run_that_is_resumed_gives_each_window_the_same_control(
    redis: Redis, config: Build, tmp_path: Path
) -> None:
    fixed: dict[str, Any] = {
        "controls": [GOOD, BAD],
        "deterministic": True,
        "device": "cpu",
        "threads": 1,
        "staleness": {"limit": 0},
    }
    whole, broken = config(**fixed, out=tmp_path / "whole"), config(**fixed, out=tmp_path / "broken", steps=3)
    async with judge(redis, by_axis([])):
        await run(whole)
        await run(broken)
        await run(broken.model_copy(update={"steps": 6}), "resume")
    assert [line["controls"] for line in metrics(broken)] == [line["controls"] for line in metrics(whole)]
    files = [each.out / "final" / "model.safetensors" for each in (whole, broken)]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = broken.model_copy(update={"controls": None})
    with pytest.raises(TrainError, match=r"controls was .* which makes it another run"):
        await run(other, "resume")
