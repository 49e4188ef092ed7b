"""Bulk work by batches of the service: so many lines at a time, judged whether or not anybody waits.

In: questions. Out: their answers, in the same order. A batch is named after its `Run` and its lines, so that a second
call finds what the first has submitted, done or not. The next batch is submitted while the one before it is read.
Raises `PreceptorError`, `StrictError`, `OutputError`, `BatchCutShortError`. Waits for: room at the service, results.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from preceptor_client.bulk.direct import Patience
from preceptor_client.bulk.output import OutputError
from preceptor_client.bulk.questions import Answered, Parse, Question, request_of
from preceptor_client.contract import JudgeRequest, JudgeResponse, Problem
from preceptor_client.sdk import AsyncPreceptorClient

BATCH_LINES = 500
_BATCH_BYTES = 8 * 1024 * 1024


class BatchCutShortError(Exception):
    """A batch ended without all its results."""


class Run:
    """One piece of bulk work, over as many calls as it takes. It is remembered in a file beside the output."""

    def __init__(self, output: Path | None, *, anew: bool = False) -> None:
        """The run that `output` belongs to, or a new one."""
        self.name = f"bulk-{uuid.uuid4().hex}"
        self.first_line: int | None = None
        """Where its first batch begins, once there is one."""
        self._path = None if output is None else output.with_name(output.name + ".batches")
        if self._path is None or anew or not self._path.exists():
            return
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self.name, self.first_line = str(known["run"]), int(known["first_line"])
        except (ValueError, KeyError, TypeError):
            raise OutputError(f"{self._path} is damaged: remove it, what is not in {output} is judged again") from None

    def begin(self, line: int) -> None:
        """The first batch begins with `line`."""
        self.first_line = line
        if self._path is not None:
            text = json.dumps({"run": self.name, "first_line": line})
            self._path.write_text(text + "\n", encoding="utf-8")

    def over(self) -> None:
        """Everything is answered."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


async def answers(
    questions: AsyncIterator[Question],
    parse: Parse[JudgeRequest],
    client: AsyncPreceptorClient,
    run: Run,
    *,
    patience: Patience,
    strict: bool,
) -> AsyncGenerator[Answered, None]:
    """The answers that are not there yet. To be closed; the service goes on with what was submitted."""
    submitted: asyncio.Queue[_Submitted | None] = asyncio.Queue(1)

    async def submit() -> None:
        try:
            async for group in _groups(questions, run):
                if all(question.done for question in group):
                    continue
                asked = [request_of(question, parse, strict=strict) for question in group]
                batch = _Submitted(_name(run, group), group, asked)
                if batch.requests:
                    await patience(partial(client.submit_batch, batch.requests, batch_id=batch.name))
                await submitted.put(batch)
        except Exception:
            await submitted.put(None)
            raise
        await submitted.put(None)

    submitting = asyncio.create_task(submit())
    try:
        while batch := await submitted.get():
            async for answered in _answers(batch, client):
                yield answered
        await submitting
    finally:
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)


@dataclass(frozen=True)
class _Submitted:
    """A group of questions, `asked[i]` being what became of `questions[i]`."""

    name: str
    questions: list[Question]
    asked: list[JudgeRequest | Problem]

    @property
    def requests(self) -> list[JudgeRequest]:
        """The batch's items."""
        return [each for each in self.asked if isinstance(each, JudgeRequest)]


async def _answers(batch: _Submitted, client: AsyncPreceptorClient) -> AsyncIterator[Answered]:
    """Each question's answer, as soon as those before it are there."""
    found: dict[int, JudgeResponse | Problem | None] = {}
    index = 0
    async with aclosing(client.batch_results(batch.name)) as results:
        for question, asked in zip(batch.questions, batch.asked, strict=True):
            answer: JudgeResponse | Problem | None = None
            if isinstance(asked, Problem):
                answer = asked
            else:
                while index not in found:
                    if (result := await anext(results, None)) is None:
                        raise BatchCutShortError(
                            f"the batch {batch.name} was stopped before line {question.line.number} was judged"
                        )
                    found[result.index] = result.response or result.problem
                answer = found.pop(index)
                index += 1
            if not question.done and answer is not None:
                yield Answered(question, answer)


async def _groups(questions: AsyncIterator[Question], run: Run) -> AsyncIterator[list[Question]]:
    """The questions of the run, cut by number and size alone: each call of a run finds the same groups."""
    group: list[Question] = []
    size = 0
    async for question in questions:
        if run.first_line is None and not question.done:
            run.begin(question.line.number)
        if run.first_line is None or question.line.number < run.first_line:
            continue
        group.append(question)
        size += len(question.line.text or b"")
        if len(group) == BATCH_LINES or size >= _BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _name(run: Run, group: Sequence[Question]) -> str:
    digest = hashlib.sha256("".join(question.digest for question in group).encode()).hexdigest()
    return f"{run.name}-{group[0].line.number}-{digest[:8]}"
