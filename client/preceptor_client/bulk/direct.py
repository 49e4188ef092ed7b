"""Bulk work by requests of its own: one for each line, a bounded number at once.

In: questions. Out: their answers, in the same order. What is wrong with one line is that line's problem; what would be
wrong with all of them (a service that is gone, a key that is refused) ends the work, with every answer before it
given. A service that went away in the middle is waited for. Raises `PreceptorError`, `StrictError`. Waits for: a free
place, the service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

import httpx

from preceptor_client.bulk.questions import Answered, Parse, Question, RequestT, request_of
from preceptor_client.contract import Message, Problem
from preceptor_client.errors import PreceptorError, RateLimitedError, ServiceUnreachableError, StatusError

AnswerT = TypeVar("AnswerT")

_AHEAD = 4
"""Answers, in multiples of the places, that may wait for one before them."""
_LINE_STATUSES = frozenset({400, 409, 413, 422, 500})
_AWAY_STATUSES = frozenset({502, 503, 504})
_PAUSE_S = 2.0


class Patience:
    """Waits for a service that was there and went away, at most for `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic, pause_s: float = _PAUSE_S) -> None:
        self._seconds = seconds
        self._clock = clock
        self._pause_s = pause_s
        self._answered = False

    async def __call__(self, ask: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """What `ask` brings, in the end. Raises PreceptorError."""
        started = self._clock()
        while True:
            try:
                answer = await ask()
            except PreceptorError as error:
                self._answered |= isinstance(error, StatusError)
                if not self._answered or not _is_away(error) or self._clock() - started >= self._seconds:
                    raise
            else:
                self._answered = True
                return answer
            await asyncio.sleep(self._pause_s)


async def answers(
    questions: AsyncIterator[Question],
    parse: Parse[RequestT],
    ask: Callable[[RequestT], Awaitable[Message]],
    *,
    patience: Patience,
    concurrency: int,
    strict: bool,
) -> AsyncGenerator[Answered, None]:
    """The answers that are not there yet. To be closed: what is in flight then is given up."""
    places = asyncio.Semaphore(concurrency)
    waiting: asyncio.Queue[asyncio.Task[Answered] | None] = asyncio.Queue(_AHEAD * concurrency)
    tasks: set[asyncio.Task[Answered]] = set()

    async def one(question: Question) -> Answered:
        async with places:
            request = request_of(question, parse, strict=strict)
            if isinstance(request, Problem):
                return Answered(question, request)
            try:
                return Answered(question, await patience(lambda: ask(request)))
            except PreceptorError as error:
                return Answered(question, problem_of(error))

    async def read() -> None:
        try:
            async for question in questions:
                if not question.done:
                    task = asyncio.create_task(one(question))
                    tasks.add(task)
                    await waiting.put(task)
        except Exception:
            await waiting.put(None)
            raise
        await waiting.put(None)

    reading = asyncio.create_task(read())
    try:
        while task := await waiting.get():
            yield await task
            tasks.discard(task)
        await reading
    finally:
        for each in (reading, *tasks):
            each.cancel()
        await asyncio.gather(reading, *tasks, return_exceptions=True)


def problem_of(error: PreceptorError) -> Problem:
    """What is wrong with one line's request. Raises the error if it is not about that line."""
    if isinstance(error, StatusError) and error.problem is not None and error.problem.status in _LINE_STATUSES:
        return error.problem
    if _ran_out_of_time(error):
        return Problem(title="Gateway Timeout", status=504, detail=str(error), request_id=error.request_id)
    raise error


def _is_away(error: PreceptorError) -> bool:
    if isinstance(error, ServiceUnreachableError):
        return not _ran_out_of_time(error)
    status = error.problem.status if error.problem else None
    return isinstance(error, RateLimitedError) or status in _AWAY_STATUSES


def _ran_out_of_time(error: PreceptorError) -> bool:
    """The service took the request and did not answer: another line may fare better."""
    return isinstance(error.__cause__, httpx.ReadTimeout)
