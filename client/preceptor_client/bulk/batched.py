"""Bulk work by batches of the service: so many lines at a time, judged whether or not anybody waits.

In: questions. Out: their answers, in the same order. The lines are cut into batches by their number and size alone,
and a batch is named after its `Run` and its place, so that a second call with the same run finds what the first has
submitted, done or not. The next batch is submitted while the one before it is read. Raises `PreceptorError`,
`StrictError`, `BatchCutShortError`. Waits for: room at the service, results.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from preceptor_client.bulk.direct import Patience
from preceptor_client.bulk.questions import Answered, Parse, Question, request_of
from preceptor_client.contract import JudgeRequest, JudgeResponse, Problem
from preceptor_client.sdk import AsyncPreceptorClient

BATCH_LINES = 500
_BATCH_BYTES = 16 * 1024 * 1024


class BatchCutShortError(Exception):
    """A batch ended without all its results."""


@dataclass(frozen=True)
class Run:
    """One piece of bulk work, over as many calls as it takes. It is remembered in a file beside the output."""

    name: str
    _path: Path | None = None

    @classmethod
    def beside(cls, output: Path | None, *, anew: bool) -> Self:
        """The run that the output belongs to, or a new one."""
        name = f"bulk-{uuid.uuid4().hex}"
        if output is None:
            return cls(name)
        path = output.with_name(output.name + ".batches")
        if not anew and path.exists():
            return cls(path.read_text(encoding="ascii").strip(), path)
        path.write_text(name + "\n", encoding="ascii")
        return cls(name, path)

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
            number = 0
            async for group in _groups(questions):
                number += 1
                if all(question.done for question in group):
                    continue
                batch = _Submitted(f"{run.name}-{number}", group, [request_of(q, parse, strict=strict) for q in group])
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


async def _groups(questions: AsyncIterator[Question]) -> AsyncIterator[list[Question]]:
    group: list[Question] = []
    size = 0
    async for question in questions:
        group.append(question)
        size += len(question.line.text or b"")
        if len(group) == BATCH_LINES or size >= _BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
