"""Callers that come while a call is under way go together in the next one: a group commit.

In: items, each handed in by a caller of its own, and a call that takes a list of them. Out: each caller's own result.
Guarantees: who comes alone is served at once, and nobody waits for more than the call under way and its own. A caller
that is cancelled, or whose call fails, takes its own item with it; the others go again. Waits for the call. Raises
what the call raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Together(Generic[ItemT, ResultT]):
    """Calls `call` for all that have come; it bears being repeated with the same items."""

    def __init__(self, call: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]]) -> None:
        self._call = call
        self._turn = asyncio.Lock()
        self._waiting: dict[asyncio.Future[ResultT], ItemT] = {}

    async def __call__(self, item: ItemT) -> ResultT:
        """The result for `item`."""
        own: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting[own] = item
        try:
            async with self._turn:
                if not own.done():
                    group = dict(self._waiting)
                    for each, result in zip(group, await self._call(list(group.values())), strict=True):
                        self._waiting.pop(each, None)
                        each.set_result(result)
            return own.result()
        finally:
            self._waiting.pop(own, None)
