"""Runs that are stopped or killed and resumed, with a real Redis and a judge whose rule is known."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.queue import CohortQueue, Delivery, QueueOperations
from preceptor_trainer.checkpoint import load_moments, load_state
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.ledger import read_ledger
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.run import run
from rule_judge import Settle, answer, by_rule, judge, share_of_good_words
from tiny_run import Build, finished, metrics, start_command, tiny_run, until

UNTIMED = ("elapsed_s", "seconds", "stalled")


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Build:
    return tiny_run(tmp_path, redis_url)


def with_ties(every: int) -> Settle:
    """By rule, but every so many documents are a tie."""

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        document = int(delivery.task.request.cohort.id.split("-")[1])
        tied = document % every == 0
        await queue.settle(delivery, answer(delivery.task.request, (lambda _: 0.5) if tied else share_of_good_words))

    return settle


async def ended_at(config: TrainConfig, step: int, *arguments: str, by: signal.Signals = signal.SIGKILL) -> None:
    """The command, ended by a signal once it has done `step`."""
    command = await start_command(config, *arguments)
    await until(lambda: len(metrics(config)) >= step or command.returncode is not None)
    assert command.returncode is None, (await command.communicate())[0].decode()
    command.send_signal(by)
    await asyncio.wait_for(command.communicate(), 60)


def untimed(config: TrainConfig) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in UNTIMED} for line in metrics(config)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "grpo"])
async def test_a_deterministic_run_killed_stopped_and_resumed_at_random_ends_as_if_nothing_had_happened(
    redis: Redis, config: Build, tmp_path: Path, objective: str
) -> None:
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"text": " ".join(f"w{number}" for number in range(2, 26))}) + "\n")
    settings = {
        "deterministic": True,
        "device": "cpu",
        "threads": 1,
        "steps": 40,
        "staleness": {"limit": 0},
        "checkpoint": {"every": 3},
        "objective": {"name": objective},
        "data": {"shuffle_buffer": 16},
        "guards": {
            "held_out_nll": {"path": str(held_out), "every": 3, "rise": 0.001},
            "entropy": {"above": 4.0, "warn_after": 1},
            "discrimination": {"fall": 0.1, "baseline": 7, "warn_after": 2},
            "repetition": {"above": 0.9},
        },
    }
    whole, broken = config(**settings, out=tmp_path / "whole"), config(**settings, out=tmp_path / "broken")
    moments = random.Random(7)
    async with judge(redis, with_ties(5)):
        await run(whole)
        await ended_at(broken, moments.randint(1, 19))
        await ended_at(broken, moments.randint(20, 39), "--resume", by=signal.SIGTERM)
        await finished(await start_command(broken, "--resume"))
    for name in ("model.safetensors", "config.json"):
        assert (broken.out / "final" / name).read_bytes() == (whole.out / "final" / name).read_bytes()
    assert untimed(broken) == untimed(whole)
    assert all("guards" in line for line in untimed(whole))
    assert sum(line["events"].get("guard_held_out_nll_warn", 0) for line in untimed(whole)) > 0
    assert (broken.out / "cohorts.jsonl").read_bytes() == (whole.out / "cohorts.jsonl").read_bytes()
    assert any(end["outcome"] == "tied" for end in read_ledger(whole.out / "cohorts.jsonl"))
    one, other = load_moments(whole.out / "final"), load_moments(broken.out / "final")
    for weight, moments_of in one.items():
        assert all(values.equal(other[weight][moment]) for moment, values in moments_of.items())


@pytest.mark.slow
async def test_an_asynchronous_run_killed_again_and_again_trains_what_it_issued_once_each(
    redis: Redis, config: Build
) -> None:
    settings = config(steps=40, staleness={"limit": 2}, checkpoint={"every": 4}, data={"shuffle_buffer": 16})
    moments = random.Random(3)
    async with judge(redis, with_ties(7)):
        await ended_at(settings, moments.randint(5, 18))
        await ended_at(settings, moments.randint(20, 38), "--resume")
        output = await finished(await start_command(settings, "--resume"))
    assert "going on from" in output
    assert [line["step"] for line in metrics(settings)] == list(range(1, 41))
    ends = read_ledger(settings.out / "cohorts.jsonl")
    ended = [end["cohort"] for end in ends]
    assert len(set(ended)) == len(ended), "no cohort ended twice"
    assert {end["outcome"] for end in ends} == {"trained", "tied"}
    assert sum(end["outcome"] == "trained" for end in ends) == 160
    state = load_state(settings.out / "final")
    assert state.in_flight == []
    # Documents are all long enough, so what was issued is what the stream gave out up to its position.
    assert len(ended) == 200 * state.position.epoch + state.position.documents
    status = await QueueOperations(redis).status()
    assert (status.waiting, status.in_flight, status.dead, sum(each.answered for each in status.runs.values())) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_run_told_to_stop_keeps_its_last_step_and_goes_on_from_there(
    redis: Redis, config: Build, number: signal.Signals
) -> None:
    settings = config(steps=400)
    async with judge(redis, by_rule(share_of_good_words)):
        command = await start_command(settings)
        await until(lambda: len(metrics(settings)) >= 5)
        command.send_signal(number)
        output = (await asyncio.wait_for(command.communicate(), 60))[0].decode()
        assert command.returncode == 128 + number
        assert f"preceptor train: stopped by {number.name}; --resume goes on with it" in output
        assert "Traceback" not in output
        done = len(metrics(settings))
        assert [path.name for path in (settings.out / "checkpoints").iterdir()] == [f"step-{done:08d}"]
        await run(settings.model_copy(update={"steps": done + 2}), "resume")
    assert [line["step"] for line in metrics(settings)] == list(range(1, done + 3))


async def test_a_run_stopped_again_and_again_keeps_its_newest_checkpoints_alone(config: Build) -> None:
    settings = config(objective={"name": "nll"}, pool={"rollouts": 0}, steps=10_000, checkpoint={"keep": 1})

    async def part() -> None:
        done, stop = len(metrics(settings)), asyncio.Event()
        running = asyncio.create_task(run(settings, "resume", stop))
        await until(lambda: len(metrics(settings)) > done)
        stop.set()
        assert not await running

    await part()
    await part()
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == [f"step-{len(metrics(settings)):08d}"]


async def test_a_run_told_to_stop_does_not_wait_for_a_policy_engine_that_is_away(
    config: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = asyncio.Event()

    class Away(TorchEngine):
        async def load(self, model: Any, version: int) -> None:
            loading.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("preceptor_trainer.run.TorchEngine", Away)
    settings, stop = config(objective={"prefer": ["original", "rollout"]}), asyncio.Event()
    running = asyncio.create_task(run(settings, stop=stop))
    await loading.wait()
    stop.set()
    async with asyncio.timeout(20):
        assert not await running
    assert load_state(settings.out / "checkpoints" / "step-00000001").step == 1


async def test_what_makes_it_another_run_is_refused_and_what_does_not_is_said(
    redis: Redis, config: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    async with judge(redis, by_rule(share_of_good_words)):
        await run(config(steps=2))
        with pytest.raises(TrainError, match=r"out holds a run already \(final\): .*--resume.*--restart"):
            await run(config(steps=2))
        with pytest.raises(TrainError, match=r"data\.suffix_tokens was 6 .* is 5 now.*another run"):
            await run(config(steps=4, data={"suffix_tokens": 5}), "resume")
        await run(config(steps=4, optimizer={"lr": 1e-4}), "resume")
        said = capfd.readouterr().err
        assert "optimizer.lr was 0.003, is 0.0001 from here on" in said
        assert "going on from" in said
        assert [line["step"] for line in metrics(config())] == [1, 2, 3, 4]
        await run(config(steps=1), "restart")
    assert [line["step"] for line in metrics(config())] == [1]


async def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    redis: Redis, config: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = config(steps=6, checkpoint={"every": 2, "keep": 3})
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
        for damaged in ("final", "checkpoints/step-00000006"):
            weights = settings.out / damaged / "model.safetensors"
            content = bytearray(weights.read_bytes())
            content[len(content) // 2] ^= 1
            weights.write_bytes(content)
        await run(settings, "resume")
    said = capfd.readouterr().err
    assert "model.safetensors" in said
    assert "step-00000004, step 4" in said
    assert [line["step"] for line in metrics(settings)] == [1, 2, 3, 4, 5, 6]


async def test_a_run_resumed_before_its_first_checkpoint_begins_and_takes_back_what_was_out(
    redis: Redis, config: Build
) -> None:
    settings = config(steps=2, staleness={"limit": 0})
    running = asyncio.create_task(run(settings))

    async def all_out() -> bool:
        return await redis.xlen("preceptor:cohorts") == 4

    await until(all_out)
    running.cancel()
    await asyncio.wait([running])
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings, "resume")
    assert await redis.xlen("preceptor:cohorts") == 0
    assert len(metrics(settings)) == 2


async def test_one_folder_serves_one_run_at_a_time(redis: Redis, config: Build) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(run(config(steps=100), stop=stop))
    await until((config().out / "run.json").exists)
    with pytest.raises(TrainError, match="another run is at work in"):
        await run(config(), "resume")
    stop.set()
    assert await running is False
