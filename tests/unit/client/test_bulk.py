"""Bulk work without any service: lines, outputs that are continued, answers in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.bulk import batched, direct
from preceptor_client.bulk.lines import Line, Splitter, read_lines
from preceptor_client.bulk.output import Output, OutputError
from preceptor_client.bulk.questions import (
    Answered,
    BadLineError,
    ChangedInputError,
    Question,
    StrictError,
    Tally,
    Written,
    questions,
)
from preceptor_client.contract import Health, Problem
from preceptor_client.errors import (
    AuthenticationError,
    PreceptorError,
    ServiceUnreachableError,
    status_error,
)


def split(data: bytes, cuts: list[int], max_bytes: int = 1000) -> list[Line]:
    splitter = Splitter(max_bytes)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [line for start, end in pairwise(edges) for line in splitter.split(data[start:end])]
    return [*found, *splitter.end()]


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b), max_size=10), st.lists(st.integers(0, 250)))
def test_lines_do_not_depend_on_how_they_arrive(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    found = split(data, cuts)
    assert found == split(data, [])
    wanted = [(number, line.strip(b"\r\t ")) for number, line in enumerate(lines, start=1)]
    if wanted:
        wanted[0] = (1, wanted[0][1].removeprefix(b"\xef\xbb\xbf"))
    assert [(line.number, line.text) for line in found] == [each for each in wanted if each[1]]
    assert all(data[: line.end].count(b"\n") in (line.number, line.number - 1) for line in found)


def test_a_line_beyond_the_bound_is_only_a_number() -> None:
    assert split(b"ab\n" + b"x" * 11 + b"\ncd", [5, 8], max_bytes=10) == [
        Line(1, b"ab", 3),
        Line(2, None, 15),
        Line(3, b"cd", 17),
    ]


async def test_a_pipe_is_read_while_it_is_written() -> None:
    reading, writing = os.pipe()
    lines = read_lines(os.fdopen(reading, "rb", buffering=0))
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        for number in (1, 2):
            pipe.write(b"{%d}\n" % number)
            assert (await asyncio.wait_for(anext(lines), 5)).number == number
        waiting = asyncio.ensure_future(anext(lines, None))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 5) is None


async def a_stream(texts: list[str]) -> AsyncIterator[Line]:
    end = 0
    for number, text in enumerate(texts, start=1):
        end += len(text) + 1
        yield Line(number, text.encode(), end)


async def asked(texts: list[str], before: Sequence[Written] = (), options: str = "") -> list[Question]:
    return [each async for each in questions(a_stream(texts), options, iter(before), Tally())]


async def test_what_was_answered_is_known_by_line_and_digest() -> None:
    first = await asked(["a", "b", "c"])
    before = [Written(each.line.number, each.digest, failed=False) for each in first[:2]]
    assert [each.done for each in await asked(["a", "b", "c", "d"], before)] == [True, True, False, False]
    for texts, options in ((["a", "x", "c"], ""), (["a"], ""), (["a", "b", "c"], "other options")):
        with pytest.raises(ChangedInputError, match=r"answers another input.* line [12] shows"):
            await asked(texts, before, options)


def answered(number: int, answer: Any = None) -> Answered:
    return Answered(Question(Line(number, b"", 0), f"d{number}"), answer or Health(status="ok"))


def test_an_output_goes_on_after_its_last_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    with Output(path) as output:
        assert [*output.before()] == []
        output.write(answered(1))
        output.write(answered(2, Problem(title="no", status=422)))
    whole = path.read_bytes()
    for torn in (b"", b"{", answered(3).as_line()[:-1]):
        path.write_bytes(whole + torn)
        with Output(path) as output:
            assert [*output.before()] == [Written(1, "d1", False), Written(2, "d2", True)]
            output.write(answered(3))
        assert path.read_bytes() == whole + answered(3).as_line()
    with Output(path, overwrite=True) as output:
        assert [*output.before()] == []


def test_an_output_whose_only_line_is_torn_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"x" * 200_000)
    with Output(path) as output:
        assert [*output.before()] == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", ["not json", "[]", '{"line": 1}', '{"line": "x", "input": "y"}'])
def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(line + "\n")
    with Output(path) as output, pytest.raises(OutputError, match=r"out\.jsonl:1 was not written by this command"):
        [*output.before()]
    assert path.read_text() == line + "\n"


def test_two_cannot_write_one_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Output(path), pytest.raises(OutputError, match="another process is writing"):
        Output(path)
    Output(path).__exit__(None, None, None)
    with pytest.raises(OutputError, match=r"cannot write .*: Is a directory"):
        Output(tmp_path)


@given(st.text(), st.text())
def test_an_output_line_is_one_line_of_json(detail: str, title: str) -> None:
    problem = Problem(title=title, status=422, detail=detail)
    line = answered(3, problem).as_line()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"line": 3, "input": "d3", "error": problem.model_dump(exclude_none=True)}


class Service:
    """Answers `ok N` by health reports, after so many turns of the loop; other texts by the errors given for them."""

    def __init__(self, errors: dict[str, list[PreceptorError]] | None = None) -> None:
        self.errors = errors or {}
        self.in_flight = 0
        self.most_in_flight = 0
        self.calls = 0

    @staticmethod
    def parse(text: bytes) -> str:
        if text.startswith(b"bad"):
            raise BadLineError("does not hold: it is bad")
        return text.decode()

    async def __call__(self, request: str) -> Health:
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for _ in range(random.Random(request).randint(0, 20)):
                await asyncio.sleep(0)
            if errors := self.errors.get(request):
                raise errors.pop(0)
        finally:
            self.in_flight -= 1
        return Health(status="ok", detail=request)


async def answers_of(
    texts: list[str], service: Service, *, strict: bool = False, patience: direct.Patience | None = None
) -> AsyncGenerator[Answered, None]:
    stream = direct.answers(
        questions(a_stream(texts), "", iter(()), Tally()),
        Service.parse,
        service,
        patience=patience or direct.Patience(0),
        concurrency=4,
        strict=strict,
    )
    async with aclosing(stream):
        async for each in stream:
            yield each


async def collected(texts: list[str], service: Service, **options: Any) -> list[str | None]:
    return [each.answer.detail async for each in answers_of(texts, service, **options)]  # type: ignore[union-attr]


def refused(status: int) -> PreceptorError:
    return status_error(Problem(title="no", status=status, detail=f"because {status}"), request_id="r")


def unreachable(cause: Exception) -> PreceptorError:
    error = ServiceUnreachableError("gone", request_id="r")
    error.__cause__ = cause
    return error


async def test_answers_keep_the_order_of_the_lines_and_the_bound() -> None:
    service = Service()
    texts = [f"ok {number}" for number in range(200)]
    assert await collected(texts, service) == texts
    assert service.most_in_flight == 4


async def test_what_is_wrong_with_one_line_is_that_lines_problem() -> None:
    service = Service({"c": [refused(422)], "d": [refused(500)], "e": [unreachable(httpx.ReadTimeout("slow"))]})
    found = await collected(["a", "bad", "c", "d", "e", "f"], service)
    assert found == ["a", "the line does not hold: it is bad", "because 422", "because 500", "gone (request r)", "f"]


async def test_what_is_wrong_with_all_of_them_ends_it_after_the_answers_before() -> None:
    stream = answers_of(["a", "b", "c", "d"], Service({"c": [refused(401)]}))
    for text in ("a", "b"):
        assert (await anext(stream)).answer == Health(status="ok", detail=text)
    with pytest.raises(AuthenticationError):
        await anext(stream)


async def test_strict_ends_it_at_a_bad_line() -> None:
    with pytest.raises(StrictError, match="3 does not hold: it is bad"):
        await collected(["a", "b", "bad", "d"], Service(), strict=True)


async def test_a_service_that_went_away_is_waited_for() -> None:
    away = [refused(503), unreachable(httpx.ConnectError("refused")), refused(429)]
    service = Service({"b": [*away]})
    found = await collected(["a", "b", "c"], service, patience=direct.Patience(60, pause_s=0))
    assert (found, service.calls) == (["a", "b", "c"], 6)


async def test_a_service_that_was_never_there_is_not_waited_for() -> None:
    service = Service({"a": [unreachable(httpx.ConnectError("refused"))] * 2})
    with pytest.raises(ServiceUnreachableError):
        await collected(["a"], service, patience=direct.Patience(60, pause_s=0))
    assert service.calls == 1


async def test_patience_ends() -> None:
    now = iter(range(100))
    service = Service({"b": [refused(503)] * 50})
    patience = direct.Patience(10, clock=lambda: float(next(now)), pause_s=0)
    with pytest.raises(PreceptorError, match="503"):
        await collected(["a", "b"], service, patience=patience)
    assert 1 < service.calls <= 12


async def test_leaving_early_leaves_nothing_running() -> None:
    service = Service()
    stream = answers_of([f"ok {number}" for number in range(1000)], service)
    assert (await anext(stream)).answer == Health(status="ok", detail="ok 0")
    await stream.aclose()
    assert service.in_flight == 0
    assert service.calls < 50
    assert len(asyncio.all_tasks()) == 1


async def test_an_input_that_fails_ends_it_after_the_answers_before() -> None:
    async def failing() -> AsyncIterator[Line]:
        yield Line(1, b"a", 2)
        raise OSError("the disk is gone")

    stream = direct.answers(
        questions(failing(), "", iter(()), Tally()),
        Service.parse,
        Service(),
        patience=direct.Patience(0),
        concurrency=1,
        strict=False,
    )
    assert (await anext(stream)).failed is False
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(stream)


def test_a_run_is_remembered_until_it_is_over(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    run = batched.Run(output)
    assert run.first_line is None
    run.begin(17)
    again = batched.Run(output)
    assert (again.name, again.first_line) == (run.name, 17)
    assert batched.Run(output, anew=True).name != run.name
    again.over()
    assert batched.Run(output).name != run.name
    batched.Run(None).begin(1)
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.batches").write_text("{")
    with pytest.raises(OutputError, match=r"out\.jsonl\.batches is damaged: remove it"):
        batched.Run(tmp_path / "out.jsonl")
