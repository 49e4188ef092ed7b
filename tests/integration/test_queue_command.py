"""`preceptor queue` against a real Redis: what it shows, what it changes, what it says when it cannot."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.cli.main import run as run_command
from preceptor_client.queue import CohortQueue, connect
from queued import a_task, answer

Setup = Callable[[CohortQueue, Redis], Awaitable[None]]


class Commands:
    """`preceptor queue` on a namespace of its own."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.namespace = f"ns-{uuid.uuid4().hex[:8]}"
        self._capsys = capsys

    def prepare(self, setup: Setup) -> None:
        async def work() -> None:
            async with connect(self.url) as redis:
                queue = CohortQueue(redis, namespace=self.namespace)
                await queue.open_group()
                await setup(queue, redis)

        asyncio.run(work())

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = run_command(["queue", *arguments, "--redis", self.url, "--namespace", self.namespace])
        output = self._capsys.readouterr()
        assert "Traceback" not in output.err
        return status, output.out, output.err

    def json(self, *arguments: str) -> list[Any]:
        status, out, _ = self(*arguments, "--json")
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def commands(redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("COLUMNS", "200")
    return Commands(redis_url, capsys)


async def some_traffic(queue: CohortQueue, redis: Redis) -> None:
    """alpha: one of each; beta: one dead letter, after an attempt that failed."""
    for name in ("answered", "buried", "held", "waiting"):
        await queue.submit(a_task(name, "alpha"))
    first, second, _ = await queue.take("w1", count=3)
    await answer(queue, first)
    await queue.bury(second, "no such rubric")
    await queue.submit(a_task("tried", "beta"))
    _, failed = await queue.take("w1", count=2)
    await queue.hand_back("w1", [failed], "the [engine] went away")
    [failed] = await queue.take("w1")
    await queue.bury(failed, "given up")


def test_status_shows_every_run(commands: Commands) -> None:
    commands.prepare(some_traffic)
    [found] = commands.json("status")
    assert found["runs"]["alpha"].pop("oldest_s") >= 0
    assert found["runs"] == {
        "alpha": {"waiting": 0, "in_flight": 2, "answered": 1, "dead": 1},
        "beta": {"waiting": 0, "in_flight": 0, "answered": 0, "dead": 1, "oldest_s": None},
    }
    assert (found["waiting"], found["in_flight"], found["dead"], found["workers"]) == (0, 2, 2, 1)
    status, out, _ = commands("status")
    assert status == 0
    rows = [line.replace("│", " ").split() for line in out.splitlines()]
    assert ["alpha", "0", "2", "1", "1", "0", "s"] in rows
    assert ["all", "0", "2", "1", "2", "0", "s"] in rows
    assert "1 worker" in out


def test_an_empty_queue_has_a_status(commands: Commands) -> None:
    [found] = commands.json("status")
    assert found == {"waiting": 0, "in_flight": 0, "dead": 0, "oldest_s": None, "workers": 0, "runs": {}}
    assert commands("status")[0] == 0


def test_dead_letters_are_shown_with_reason_attempts_and_last_error(commands: Commands) -> None:
    commands.prepare(some_traffic)
    first, second = commands.json("dead")
    assert (first["run"], first["cohort_id"], first["reason"], first["attempts"]) == (
        "alpha",
        "buried",
        "no such rubric",
        1,
    )
    assert (second["attempts"], second["last_error"]) == (2, "the [engine] went away")
    assert json.loads(second["task"])["request"]["cohort"]["id"] == "tried"
    assert [letter["cohort_id"] for letter in commands.json("dead", "--run", "beta")] == ["tried"]
    assert len(commands.json("dead", "--limit", "1")) == 1
    _, out, _ = commands("dead")
    assert "no such rubric" in out
    assert "the [engine] went away" in out


def test_bytes_that_are_no_text_can_be_shown(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    async def rubbish(queue: CohortQueue, redis: Redis) -> None:
        entry: dict[Any, Any] = {b"run": b"\xff\x1b[31m", b"cohort": b"[red]\xfe", b"task": b"\x00\xff"}
        await redis.xadd(f"{commands.namespace}:cohorts", entry)
        assert await queue.take("w1") == []

    commands.prepare(rubbish)
    [letter] = commands.json("dead")
    assert (letter["run"], letter["task"]) == ("", "\x00\udcff")
    status, out, _ = commands("dead")
    assert status == 0
    out.encode()
    assert "cannot be decoded" in out
    assert "0 put back" in commands("replay", "--all")[2]


def test_replay_puts_back_what_is_named(commands: Commands) -> None:
    commands.prepare(some_traffic)
    first, _ = commands.json("dead")
    status, _, err = commands("replay", first["entry_id"])
    assert (status, err) == (0, "1 put back; dead letters left: 1\n")
    status, _, err = commands("replay", first["entry_id"])
    assert (status, err) == (1, f"preceptor: no dead letter {first['entry_id']}\n")
    assert commands("replay", "--run", "beta")[2] == "1 put back; dead letters left: 0\n"
    assert commands("replay", "--all")[2] == "0 put back; dead letters left: 0\n"
    [found] = commands.json("status")
    assert (found["waiting"], found["dead"]) == (2, 0)


@pytest.mark.parametrize("arguments", [(), ("1-0", "--all"), ("--all", "--run", "x"), ("1-0", "--run", "x")])
def test_replay_wants_one_way_of_naming(commands: Commands, arguments: tuple[str, ...]) -> None:
    status, _, err = commands("replay", *arguments)
    assert status == 1
    assert "name what to replay" in err


def test_a_wrong_entry_is_told(commands: Commands) -> None:
    status, _, err = commands("replay", "not-an-entry")
    assert status == 1
    assert "no dead letter not-an-entry" in err


def test_purge_asks_says_what_goes_and_takes_no_for_an_answer(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.prepare(some_traffic)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    status, _, err = commands("purge", "--run", "alpha")
    assert status == 1
    assert "all of alpha: 2 in flight, 1 answered and not yet consumed, 1 dead letter" in err
    assert "nothing was purged" in err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert commands("purge", "--dead")[0] == 1
    [found] = commands.json("status")
    assert (found["in_flight"], found["dead"]) == (2, 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert commands("purge", "--run", "alpha")[0] == 0
    [found] = commands.json("status")
    assert (found["in_flight"], found["dead"], set(found["runs"])) == (0, 1, {"beta"})


def test_purge_of_dead_letters_leaves_the_rest(commands: Commands) -> None:
    commands.prepare(some_traffic)
    assert commands("purge", "--dead", "--run", "beta", "--yes")[2] == "purged: 1 dead letter of beta\n"
    assert commands("purge", "--dead", "--yes")[2] == "purged: 1 dead letter of all runs\n"
    assert commands("purge", "--dead", "--yes")[2] == "there is nothing to purge\n"
    [found] = commands.json("status")
    assert (found["in_flight"], found["dead"]) == (2, 0)
    status, _, err = commands("purge")
    assert status == 1
    assert "name what to purge" in err


@pytest.mark.parametrize("command", ["status", "dead", "replay --all", "purge --dead"])
def test_a_redis_that_cannot_be_asked_is_told_without_its_password(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["queue", *command.split(), "--redis", "redis://:secret@127.0.0.1:9/0"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("preceptor: cannot ask Redis at redis://:***@127.0.0.1:9/0: Redis is away: ")
    assert "secret" not in err
