"""Rewrites in front of the rollouts: the teacher needs no policy, so its work is done before it is asked for.

In: windows with their positions, and a rewrite service (or none). Out: the same windows in the same order, each with
its rewrite. With thoughts the service, by its rubrics, writes a thought that leads to the suffix, and the rewrite is
that thought with the suffix as it is; one that is malformed, or the suffix itself, is none. Guarantees: at most `ahead`
windows are held and at most `concurrency` asked for at once; a rewrite that is refused, fails or is empty is None and
counted, and its window goes on without it. May wait for the documents, and for the service: one that is away, or whose
teacher is, for up to `rewrite.patience_s`; then windows go on without a rewrite, each after one try, until it answers
again. Raises `TrainError` when the service does not take the key, or is another program.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

from pydantic import ValidationError

from preceptor_client import tracing
from preceptor_client.contract import Health, Origin, RewriteRequest, RewriteResponse
from preceptor_client.errors import (
    AuthenticationError,
    InvalidRequestError,
    RateLimitedError,
    ServiceError,
    ServiceUnreachableError,
    UnexpectedResponseError,
)
from preceptor_client.masking import shown
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PreparedWindow, TokenCandidate
from preceptor_trainer.config import RewriteConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.patience import Patience
from preceptor_trainer.thoughts import ThoughtFormat


class Rewriter(Protocol):
    """What is needed of `preceptor_client.AsyncPreceptorClient`."""

    async def rewrite(self, request: RewriteRequest) -> RewriteResponse: ...

    async def health(self, service: Literal["judge", "rewrite"]) -> Health: ...


@dataclass(frozen=True)
class _Asked:
    """A window, and what became of its rewrite, if one was asked for."""

    prepared: PreparedWindow
    became: str | None = None


class RewriteAhead:
    """`count` is told what became of each rewrite as its window is given out: `rewrite_<outcome>`;
    `rewrite_unreachable` if there was no answer; `rewrite_unfit` if the text is not one that the service takes;
    `rewrite_malformed` if a thought is. `first` are windows prepared before (by a run that is resumed), given out in
    front of the others as they are. `traced` gives the span of a window's rewrite.
    """

    def __init__(
        self,
        windows: Iterable[tuple[Window, Position]],
        codec: Codec,
        config: RewriteConfig,
        rewriter: Rewriter | None,
        count: Callable[[str], None],
        first: Sequence[PreparedWindow] = (),
        thoughts: ThoughtFormat | None = None,
        traced: Callable[[str], AbstractContextManager[tracing.Span]] = lambda id: tracing.UNTRACED,
    ) -> None:
        self._windows = iter(windows)
        self._codec = codec
        self._config = config
        self._rewriter = rewriter
        self._asking = asyncio.Semaphore(config.concurrency)
        self._count = count
        self._first = first
        self._traced = traced
        self._thoughts = thoughts
        self._away_since: float | None = None
        self.waiting: str | None = None
        """The service that is waited for, and what was seen of it."""

    async def windows(self) -> AsyncGenerator[PreparedWindow, None]:
        """Every window in turn. Close the generator to cancel what is being asked."""
        prepared: deque[asyncio.Future[_Asked]] = deque(map(_done, self._first))
        try:
            while True:
                if len(prepared) <= self._config.ahead // 2:
                    # Documents come from a disk or a network: in a thread, so that the loop goes on.
                    pulled = islice(self._windows, self._config.ahead - len(prepared))
                    for window, position in await asyncio.to_thread(list, pulled):
                        prepared.append(asyncio.create_task(self._prepare(window, position)))
                if not prepared:
                    return
                asked = await prepared[0]
                if asked.became:
                    self._count(asked.became)
                yield asked.prepared
                prepared.popleft()
        finally:
            for asking in prepared:
                asking.cancel()
            await asyncio.gather(*prepared, return_exceptions=True)

    async def _prepare(self, window: Window, position: Position) -> _Asked:
        if self._rewriter is None:
            return _Asked(PreparedWindow(window, position, None))
        with self._traced(window.id) as span:
            rewrite, became = await self._rewrite(self._rewriter, window)
            span.set({"outcome": became})
        return _Asked(PreparedWindow(window, position, rewrite), f"rewrite_{became}")

    async def _rewrite(self, rewriter: Rewriter, window: Window) -> tuple[TokenCandidate | None, str]:
        original = self._codec.decode(window.suffix)
        try:
            request = RewriteRequest(prefix=self._codec.decode(window.prefix), suffix=original)
            async with self._asking:
                response = await self._answer(rewriter, request)
        except (ValidationError, InvalidRequestError):
            return None, "unfit"
        if response is None:
            return None, "unreachable"
        if response.rewrite is None:
            return None, response.outcome.value
        if self._thoughts:
            return self._thought(self._thoughts, window, original, response)
        # An unchanged suffix keeps its own tokens: another spelling of the same text would be another candidate.
        ids = (
            list(window.suffix)
            if response.unchanged
            else self._codec.encode_rewrite(response.rewrite, original, len(window.suffix))
        )
        if not ids:
            return None, "empty"
        return TokenCandidate("rewrite", Origin.REWRITE, tuple(ids), self._codec.decode(ids)), response.outcome.value

    def _thought(
        self, thoughts: ThoughtFormat, window: Window, original: str, response: RewriteResponse
    ) -> tuple[TokenCandidate | None, str]:
        thought = [] if response.unchanged else self._codec.encode((response.rewrite or "").strip())
        ids = thoughts.put(thought, window.suffix)
        if ids is None:
            return None, "malformed"
        return TokenCandidate(
            "rewrite", Origin.REWRITE, ids, original, thought=len(thought) + 2
        ), response.outcome.value

    async def _answer(self, rewriter: Rewriter, request: RewriteRequest) -> RewriteResponse | None:
        """None if the service is away, or its teacher, and the patience with it is over."""
        url = shown(self._config.url)
        patience: Patience | None = None
        while True:
            try:
                response = await rewriter.rewrite(request)
            except (ServiceUnreachableError, ServiceError, RateLimitedError) as error:
                away = f"is away: {error}"
            except AuthenticationError as error:
                raise TrainError(
                    f"the rewrite service at {url} does not take the key: {error}; set rewrite.api_key"
                ) from error
            except UnexpectedResponseError as error:
                raise TrainError(
                    f"{url} does not answer as a rewrite service does: {error}; set rewrite.url"
                ) from error
            else:
                # A call to its teacher failed: for this text, or because there is no teacher now?
                health = None if response.final else await rewriter.health("rewrite")
                if health is None or health.status == "ok":
                    self._away_since = self.waiting = None
                    return response
                away = f"is {health.status}: {health.detail}"
            # All windows wait together: what the first has waited, the others need not wait again.
            if self._away_since is None:
                self._away_since = time.monotonic()
            patience = patience or Patience(self._config.patience_s, self._away_since)
            self.waiting = f"the rewrite service at {url} {away}"
            if not await patience.pause():
                self.waiting = None
                return None


def _done(window: PreparedWindow) -> asyncio.Future[_Asked]:
    future: asyncio.Future[_Asked] = asyncio.get_running_loop().create_future()
    future.set_result(_Asked(window))
    return future
