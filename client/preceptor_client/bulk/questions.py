"""What becomes of a line: a question, then an answer to it. Pure.

In: lines, and what an earlier call has answered. Out: `Question`s, in order; `done` says that the answer is there. A
digest of each line and of the options ties an answer to what was asked, so that an output is never continued with
another input. Raises `ChangedInputError` if it would be.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from preceptor_client.bulk.lines import MAX_LINE_BYTES, Line
from preceptor_client.contract import JudgeResponse, Message, Problem, RewriteResponse

RequestT = TypeVar("RequestT")
Parse = Callable[[bytes], RequestT]
"""A line as a request. Raises BadLineError."""


class BadLineError(ValueError):
    """The line is not a request; the text says what to change."""


class StrictError(Exception):
    """A line is not a request, and that was to end the work."""


class ChangedInputError(Exception):
    """The output answers another input, or was made with other options."""


@dataclass(frozen=True)
class Written:
    """What an output line says of itself: the input line that it answers, and how."""

    line: int
    digest: str
    failed: bool


@dataclass(frozen=True)
class Question:
    """A line that is to be answered, or was (`done`)."""

    line: Line
    digest: str
    done: bool = False


@dataclass(frozen=True)
class Answered:
    """A question with its answer: a response, or the problem that there is instead."""

    question: Question
    answer: Message | Problem

    @property
    def failed(self) -> bool:
        """Whether there is no response."""
        return isinstance(self.answer, Problem)

    def as_line(self) -> bytes:
        """`{"line": ..., "input": ..., "response" or "error": ...}`, and the line's end."""
        head = json.dumps({"line": self.question.line.number, "input": self.question.digest})
        kind = "error" if self.failed else "response"
        return f'{head[:-1]}, "{kind}": {self.answer.model_dump_json(exclude_none=self.failed)}}}\n'.encode()


@dataclass
class Tally:
    """What came of all lines."""

    lines: int = 0
    errors: int = 0
    before: int = 0
    """Lines that an earlier call has answered."""
    errors_before: int = 0
    results: Counter[str] = field(default_factory=Counter)
    """Verdicts by status, or rewrites by outcome, of this call."""

    def add(self, answered: Answered) -> None:
        """Count one more."""
        self.lines += 1
        self.errors += answered.failed
        if isinstance(answered.answer, JudgeResponse):
            self.results.update(verdict.status.value for verdict in answered.answer.verdicts)
        elif isinstance(answered.answer, RewriteResponse):
            self.results[answered.answer.outcome.value] += 1


async def questions(
    lines: AsyncIterator[Line], options: str, before: Iterator[Written], tally: Tally
) -> AsyncIterator[Question]:
    """A question for each of `lines`. `options` is whatever else decides an answer."""
    salt = hashlib.sha256(options.encode())
    expected = next(before, None)
    async for line in lines:
        digest = salt.copy()
        digest.update(line.text or b"")
        question = Question(line, digest.hexdigest()[:16], done=expected is not None)
        if expected is not None:
            if (expected.line, expected.digest) != (line.number, question.digest):
                raise ChangedInputError(_changed(expected))
            tally.before += 1
            tally.errors_before += expected.failed
            expected = next(before, None)
        yield question
    if expected is not None:
        raise ChangedInputError(_changed(expected))


def request_of(question: Question, parse: Parse[RequestT], *, strict: bool) -> RequestT | Problem:
    """The request in a line, or what is wrong with it. Raises StrictError instead of the latter if `strict`."""
    try:
        if question.line.text is None:
            raise BadLineError(f"is longer than {MAX_LINE_BYTES} bytes")
        return parse(question.line.text)
    except BadLineError as error:
        if strict:
            raise StrictError(f"{question.line.number} {error}") from None
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return Problem(title="Not a request", status=status.value, detail=f"the line {error}")


def _changed(expected: Written) -> str:
    return f"it answers another input, or was made with other options, as its answer to line {expected.line} shows"
