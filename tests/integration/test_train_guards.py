"""Drift guards in whole runs: each fires on the failure that it is for, provoked; and what a run does then."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.contract import Status
from preceptor_client.queue import CohortQueue, Delivery, QueueOperations
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.guards.config import GuardsConfig
from preceptor_trainer.guards.watch import Drifted
from preceptor_trainer.ledger import read_ledger
from preceptor_trainer.run import run
from rule_judge import Rule, Settle, answer, by_rule, judge, share_of_good_words
from tiny_policy import save_policy
from tiny_run import Build, metrics, start_command, tiny_run, until

STOP = {"warn_after": 1, "act_after": 2, "action": "stop"}
NLL: dict[str, Any] = {"objective": {"name": "nll"}, "pool": {"rollouts": 0}}


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Build:
    return tiny_run(tmp_path, redis_url)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    file = tmp_path / "held-out.jsonl"
    lines = [{"text": " ".join(f"w{(7 * i + 11 * j) % 58 + 2}" for j in range(24))} for i in range(1000, 1020)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def after(cohorts: int, rule: Rule) -> Settle:
    """The judge scores good words, and by `rule` once it has answered so many cohorts."""
    answered = 0

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal answered
        answered += 1
        await queue.settle(
            delivery, answer(delivery.task.request, share_of_good_words if answered <= cohorts else rule)
        )

    return settle


def share_of_repeated_words(text: str) -> float:
    words = text.split()
    return 1 - len(set(words)) / len(words) if words else 0.0


def shortness(text: str) -> float:
    return 1 / (1 + len(text.split()))


def newest(config: TrainConfig) -> Path:
    """The checkpoint that was kept."""
    return max((config.out / "checkpoints").iterdir())


def readings(config: TrainConfig, name: str) -> list[float]:
    return [line["guards"][name] for line in metrics(config) if name in line.get("guards", {})]


@pytest.mark.parametrize(
    ("guard", "limits", "rule"),
    [
        ("repetition", {"above": 0.3}, share_of_repeated_words),
        ("entropy", {"fall": 0.2, "baseline": 3}, share_of_repeated_words),
        ("length", {"fall": 0.3, "baseline": 3}, shortness),
    ],
)
async def test_a_policy_that_a_judge_rewards_for_collapsing_is_stopped(
    redis: Redis, config: Build, tmp_path: Path, guard: str, limits: dict[str, float], rule: Rule
) -> None:
    save_policy(tmp_path / "policy", scale=0.02, eos=guard == "length")
    settings = config(
        steps=200,
        cohorts_per_step=8,
        pool={"original": False, "rollouts": 6},
        guards={guard: {**limits, **STOP}},
        optimizer={"lr": 1e-2},
        objective={"beta": 0.02},
    )
    async with judge(redis, by_rule(rule)):
        with pytest.raises(Drifted, match=rf"drift guard {guard}: .* beyond a limit 2 times in a row; the last update"):
            await run(settings)
    values = readings(settings, guard)
    assert len(values) > 3
    assert (values[-1] > values[0]) == (guard == "repetition")
    summary = json.loads((settings.out / "summary.json").read_text())
    assert summary["events"][f"guard_{guard}_stop"] == 1
    assert load_state(newest(settings)).step == len(metrics(settings))


@pytest.mark.parametrize(
    ("guard", "limits", "rule", "outcome"),
    [
        ("discrimination", {"fall": 0.5, "baseline": 2}, lambda _: 0.5, "tied"),
        ("discrimination", {"below": 0.01}, lambda text: 0.5 + 1e-4 * share_of_good_words(text), "trained"),
        ("abstention", {"above": 0.2}, lambda _: Status.ABSTAINED, "unjudged"),
    ],
)
async def test_a_judge_that_no_longer_tells_candidates_apart_stops_the_run_with_updates_or_without(
    redis: Redis, config: Build, guard: str, limits: dict[str, float], rule: Rule, outcome: str
) -> None:
    settings = config(steps=200, guards={guard: {**limits, **STOP}})
    async with judge(redis, after(20, rule)):
        with pytest.raises(Drifted, match=f"drift guard {guard}: .* beyond a limit 2 times in a row"):
            await run(settings)
    assert len(metrics(settings)) < 20
    assert load_state(newest(settings)).step == len(metrics(settings))
    summary = json.loads((settings.out / "summary.json").read_text())
    assert (summary["events"][f"guard_{guard}_warn"], summary["events"][f"guard_{guard}_stop"]) == (1, 1)
    assert outcome in {end["outcome"] for end in read_ledger(settings.out / "cohorts.jsonl")[20:]}


async def test_a_learning_rate_that_ruins_the_policy_raises_the_held_out_nll_over_that_of_its_start(
    config: Build, held_out: Path
) -> None:
    guard = {"path": str(held_out), "every": 2, "rise": 0.2, **STOP}
    settings = config(**NLL, steps=200, optimizer={"lr": 1.0, "clip": None}, guards={"held_out_nll": guard})
    with pytest.raises(Drifted, match=r"held_out_nll: .* is above 4\.9\d+ \(its baseline 4\.\d+ \+ 20%\)"):
        await run(settings)
    assert [line["step"] for line in metrics(settings) if "guards" in line] == [1, 2, 4]
    assert "guarding" in metrics(settings)[1]["seconds"]
    assert "guarding" not in metrics(settings)[2]["seconds"]


async def test_without_guards_nothing_is_read_and_without_an_action_a_run_is_only_warned(
    redis: Redis, config: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    async with judge(redis, by_rule(share_of_good_words)):
        await run(config(steps=4))
        assert not any("guards" in line for line in metrics(config()))
        await run(config(steps=6, guards={"entropy": {"above": 0.1, "warn_after": 2}}), "restart")
    assert len(metrics(config())) == 6
    said = [line for line in capfd.readouterr().err.splitlines() if "drift guard" in line]
    assert len(said) == 1
    assert re.fullmatch(r"test: drift guard entropy: \S+ is above 0\.1, beyond a limit 2 times in a row", said[0])


async def test_a_run_that_a_guard_stopped_says_how_to_go_on_and_goes_on_where_it_stopped(
    redis: Redis, config: Build
) -> None:
    settings = config(steps=30, guards={"entropy": {"above": 0.1, **STOP, "act_after": 3}})
    async with judge(redis, by_rule(share_of_good_words)):
        command = await start_command(settings)
        output = (await asyncio.wait_for(command.communicate(), 60))[0].decode()
        assert command.returncode == 3
        last = output.strip().splitlines()[-1]
        assert re.fullmatch(
            r"preceptor train: stopped by drift guard entropy: .*; the last update was \d+; --resume goes on with it",
            last,
        )
        done = len(metrics(settings))
        assert 0 < done < 30
        with pytest.raises(Drifted):  # it lasts, so it is told again, after as many readings as before
            await run(settings, "resume")
        assert done + 2 <= len(metrics(settings)) < 30
        assert await run(settings.model_copy(update={"guards": GuardsConfig()}), "resume")
    assert [line["step"] for line in metrics(settings)] == list(range(1, 31))


async def test_a_pause_waits_for_the_operator_and_what_follows_is_as_if_there_had_been_none(
    redis: Redis, config: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    exact = {"deterministic": True, "device": "cpu", "threads": 1, "staleness": {"limit": 0}, "steps": 6}
    limits = {"above": 0.1, "warn_after": 1, "act_after": 4}
    warned = config(**exact, out=tmp_path / "warned", guards={"entropy": limits})
    paused = config(**exact, out=tmp_path / "paused", guards={"entropy": {**limits, "action": "pause"}})
    note = paused.out / "PAUSED"
    async with judge(redis, by_rule(share_of_good_words)):
        await run(warned)
        running = asyncio.create_task(run(paused))
        await until(lambda: note.exists() or running.done())
        assert "drift guard entropy" in note.read_text()
        assert len(metrics(paused)) == 4
        assert (await QueueOperations(redis).status()).waiting == 0
        note.unlink()
        assert await running
    weights = [(each.out / "final" / "model.safetensors").read_bytes() for each in (warned, paused)]
    assert weights[0] == weights[1]
    assert [line["guards"] for line in metrics(warned)] == [line["guards"] for line in metrics(paused)]
    said = capfd.readouterr().err
    assert "test: paused: drift guard entropy: " in said
    assert f"Remove {note} and it goes on" in said


async def test_a_pause_ends_by_a_signal_or_after_its_limit_and_leaves_no_note(redis: Redis, config: Build) -> None:
    guards: dict[str, Any] = {"entropy": {"above": 0.1, **STOP, "action": "pause"}}
    settings = config(steps=50, guards=guards)
    note = settings.out / "PAUSED"
    async with judge(redis, by_rule(share_of_good_words)):
        with pytest.raises(Drifted, match="drift guard entropy"):
            await run(config(steps=50, guards={**guards, "pause_limit_s": 0.2}))
        assert not note.exists()
        stop = asyncio.Event()
        running = asyncio.create_task(run(settings, "resume", stop))
        await until(lambda: note.exists() or running.done())
        stop.set()
        assert await running is False
    assert not note.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "/nowhere"}, r"/nowhere: no such file or folder; set guards\.held_out_nll\.path"),
        ({"text_field": "body"}, r"set guards\.held_out_nll\.text_field to one of: text"),
    ],
)
async def test_held_out_documents_that_are_not_there_are_told_at_the_start(
    config: Build, held_out: Path, changes: dict[str, Any], message: str
) -> None:
    settings = config(**NLL, guards={"held_out_nll": {"path": str(held_out), "above": 1.0, **changes}})
    with pytest.raises(TrainError, match=message):
        await run(settings)
    assert metrics(settings) == []
