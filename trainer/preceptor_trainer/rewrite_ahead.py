"""Rewrites in front of the rollouts: the teacher needs no policy, so its work is done before it is asked for.

In: windows with their positions, and a rewrite service (or none). Out: the same windows in the same order, each with
its rewrite. Guarantees: at most `ahead` windows are held and at most `concurrency` asked for at once; a rewrite that
is refused, fails or is empty is None and counted, and its window goes on without it. May wait for the service, and
for the documents.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice
from typing import Protocol

from preceptor_client.contract import Origin, RewriteRequest, RewriteResponse
from preceptor_client.errors import PreceptorError
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PreparedWindow, TokenCandidate
from preceptor_trainer.config import RewriteConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window


class Rewriter(Protocol):
    """What is needed of `preceptor_client.AsyncPreceptorClient`."""

    async def rewrite(self, request: RewriteRequest) -> RewriteResponse: ...


class RewriteAhead:
    """`count` is told what became of each rewrite: `rewrite_<outcome>`, or `rewrite_unreachable` if there was no
    answer.
    """

    def __init__(
        self,
        windows: Iterable[tuple[Window, Position]],
        codec: Codec,
        config: RewriteConfig,
        rewriter: Rewriter | None,
        count: Callable[[str], None],
    ) -> None:
        self._windows = iter(windows)
        self._codec = codec
        self._config = config
        self._rewriter = rewriter
        self._asking = asyncio.Semaphore(config.concurrency)
        self._count = count

    async def windows(self) -> AsyncGenerator[PreparedWindow, None]:
        """Every window in turn. Close the generator to cancel what is being asked."""
        prepared: deque[asyncio.Task[PreparedWindow]] = deque()
        try:
            while True:
                if len(prepared) <= self._config.ahead // 2:
                    # Documents come from a disk or a network: in a thread, so that the loop goes on.
                    pulled = islice(self._windows, self._config.ahead - len(prepared))
                    for window, position in await asyncio.to_thread(list, pulled):
                        prepared.append(asyncio.create_task(self._prepare(window, position)))
                if not prepared:
                    return
                yield await prepared[0]
                prepared.popleft()
        finally:
            for task in prepared:
                task.cancel()

    async def _prepare(self, window: Window, position: Position) -> PreparedWindow:
        rewrite = await self._rewrite(self._rewriter, window) if self._rewriter else None
        return PreparedWindow(window, position, rewrite)

    async def _rewrite(self, rewriter: Rewriter, window: Window) -> TokenCandidate | None:
        original = self._codec.decode(window.suffix)
        try:
            async with self._asking:
                response = await rewriter.rewrite(
                    RewriteRequest(prefix=self._codec.decode(window.prefix), suffix=original)
                )
        except PreceptorError:
            self._count("rewrite_unreachable")
            return None
        if response.rewrite is None:
            self._count(f"rewrite_{response.outcome.value}")
            return None
        # An unchanged suffix keeps its own tokens: another spelling of the same text would be another candidate.
        ids = (
            list(window.suffix)
            if response.unchanged
            else self._codec.encode_rewrite(response.rewrite, original, len(window.suffix))
        )
        self._count(f"rewrite_{response.outcome.value if ids else 'empty'}")
        return TokenCandidate("rewrite", Origin.REWRITE, tuple(ids), self._codec.decode(ids)) if ids else None
