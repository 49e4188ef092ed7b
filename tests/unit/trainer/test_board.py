"""A run that shows itself, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from preceptor_client.board import BoardReader
from preceptor_client.contract import RunState
from preceptor_client.stack import claim_port
from preceptor_trainer.board import Board, open_board
from preceptor_trainer.codec import Codec
from queued import Server
from shown_run import Characters, a_cohort, a_config, an_answer
from tiny_run import until

SCORES = {"original": 0.2, "rewrite": 0.9}


def prepared(out: Path) -> None:
    out.mkdir(exist_ok=True)
    (out / "metrics.jsonl").touch()


@asynccontextmanager
async def a_board(out: Path, url: str, *, step: int = 0, **changes: Any) -> AsyncIterator[Board]:
    """The board of a run whose folder is there."""
    prepared(out)
    async with AsyncExitStack() as resources:
        board = open_board(
            a_config(out, url, "preceptor", **changes), Codec(Characters()), step=step, resources=resources
        )
        yield await resources.enter_async_context(board)


async def test_a_run_shows_its_rows_and_how_it_stands(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    reader = BoardReader(redis, namespace="preceptor")
    async with a_board(tmp_path / "out", redis_url) as board:
        board.row({"step": 1, "loss": 0.5})
        board.waits("judges")

        async def shown() -> bool:
            return bool(infos := await reader.runs()) and infos[0].waiting_for == "judges"

        await until(shown)
        (info,) = await reader.runs()
        assert (info.run, info.name, info.step, info.state) == (board.run, "sip", 1, RunState.RUNNING)
        assert (info.axes["quality"], info.rewrites, info.staleness_limit) == (1.0, True, 1)
        assert (await reader.rows(board.run)).rows == ({"step": 1, "loss": 0.5},)
    (ended,) = await reader.runs()
    assert (ended.state, ended.waiting_for) == (RunState.STOPPED, None)


async def test_how_a_run_ended_is_told(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    reader = BoardReader(redis, namespace="preceptor")
    async with a_board(tmp_path / "out", redis_url, steps=1) as board:
        board.row({"step": 1})
    assert (await reader.runs())[0].state == RunState.FINISHED
    try:
        async with a_board(tmp_path / "out", redis_url) as board:
            raise ValueError
    except ValueError:
        assert (await reader.runs())[0].state == RunState.FAILED


async def test_cohorts_are_shown_as_they_ended_with_texts_and_verdicts(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with a_board(tmp_path / "out", redis_url) as board:
        tied, dead = a_cohort(2, 0), a_cohort(3, 0)
        board.sampled([tied, dead])
        answer = an_answer(tied, SCORES, said="why")
        board.judged(tied.id, answer)
        board.judged("0-9", answer)  # not one that was sampled here
        board.dropped(tied.id, "tied", "none given")
        board.dropped(dead.id, "dead", "delivered 5 times")
    shown = (await BoardReader(redis, namespace="preceptor").cohorts(board.run)).cohorts
    assert [(one.cohort.id, one.outcome, one.reason) for one in shown] == [
        ("0-2", "tied", "none given"),
        ("0-3", "dead", "delivered 5 times"),
    ]
    assert shown[0].response == answer
    assert (shown[0].cohort.prefix, shown[0].cohort.reference) == ("anna lives in", "rome .")
    assert [one.text for one in shown[0].cohort.candidates] == ["rome .", "paris .", "paris paris .", "oslo ."]
    assert shown[1].response is None


async def test_a_resumed_run_shows_the_rows_that_its_folder_holds(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    reader, out = BoardReader(redis, namespace="preceptor"), tmp_path / "out"
    async with a_board(out, redis_url) as board:
        board.sampled([a_cohort(1, 0)])
        board.dropped("0-1", "tied", "none given")
        for step in (1, 2, 3):
            board.row({"step": step})
    (out / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    async with a_board(out, redis_url, step=2) as resumed:
        resumed.row({"step": 3, "again": True})
    assert resumed.run == board.run
    assert (await reader.rows(board.run)).rows == ({"step": 1}, {"step": 2}, {"step": 3, "again": True})
    assert len((await reader.cohorts(board.run)).cohorts) == 1
    (out / "metrics.jsonl").write_text("")
    async with a_board(out, redis_url):
        pass
    assert (await reader.cohorts(board.run)).cohorts == ()
    assert (await reader.rows(board.run)).rows == ()


def test_cohorts_are_chosen_by_lot_and_the_lot_stays_the_same(tmp_path: Path) -> None:
    async def chosen() -> list[bool]:
        async with a_board(tmp_path / "out", "redis://127.0.0.1:1/0", board={"every": 4}) as board:
            return [board.shows(f"0-{number}") for number in range(1000)]

    first = asyncio.run(chosen())
    assert 200 < sum(first) < 300
    assert asyncio.run(chosen()) == first


async def test_a_run_that_asks_no_judge_or_is_told_not_to_shows_nothing(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    unjudged = {"objective": {"name": "nll"}, "pool": {"original": True}}
    for changes in (unjudged, {"board": {"enabled": False}}):
        async with a_board(tmp_path / "out", redis_url, **changes) as board:
            board.row({"step": 1})
            assert not board.shows("0-1")
    async with a_board(tmp_path / "out", redis_url, board={"cohorts": 0, "every": 1}) as board:
        assert not board.shows("0-1")
    assert await redis.keys("*cohorts*") == []
    assert [info.every for info in await BoardReader(redis, namespace="preceptor").runs()] == [0]


async def test_a_redis_that_is_away_holds_nothing_up_and_is_told_later(tmp_path: Path) -> None:
    port = claim_port()
    async with a_board(tmp_path / "out", f"redis://127.0.0.1:{port}/0", board={"rows": 2}) as board:
        for step in (1, 2, 3):
            board.row({"step": step})
            await asyncio.sleep(0)
        server = Server(tmp_path / "redis", port)
        try:
            redis = Redis.from_url(server.url, decode_responses=True)
            reader = BoardReader(redis, namespace="preceptor")

            async def caught_up() -> bool:
                return bool(await reader.runs())

            await until(caught_up)
            assert (await reader.rows(board.run)).rows == ({"step": 2}, {"step": 3})
            await redis.aclose()
        finally:
            server.stop()
