"""Places that are given out by priority.

In: callers that want one of a fixed number of places, each with a `Priority`. Out: at most `places` of them hold one
at a time.
Guarantees: a free place goes to the highest priority that waits, and within one priority to whoever came first; every
`_FAIR_TURN`th place goes to the caller that has waited longest, whatever its priority, so that nobody waits for ever
behind a stream of more urgent ones. A caller that is cancelled takes no place with it.
Waits for: a place.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count

_FAIR_TURN = 8
"""Costs the most urgent an eighth of the places while others wait, and bounds the others' wait by their number."""


class Priority(IntEnum):
    """How urgent a call is; the lower goes first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    BULK = 1
    """A batch that was submitted to be worked off."""
    TRAINING = 2
    """Cohorts from the queue: the trainer has others meanwhile."""


class PriorityPlaces:
    """A semaphore whose waiters are served by priority. Use as `async with places.held(priority)`."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._held = 0
        self._tickets = count()
        self._turn = 0
        self._waiting: dict[Priority, OrderedDict[int, asyncio.Future[None]]] = {
            priority: OrderedDict() for priority in Priority
        }

    @property
    def load(self) -> int:
        """How many hold a place or wait for one."""
        return self._held + sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def held(self, priority: Priority) -> AsyncIterator[None]:
        """A place for the length of the `with` block."""
        await self._acquire(priority)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, priority: Priority) -> None:
        if self._free:  # then nobody waits: a place that is given back goes to a waiter at once
            self._free -= 1
            self._held += 1
            return
        ticket, place = next(self._tickets), asyncio.get_running_loop().create_future()
        self._waiting[priority][ticket] = place
        try:
            await place
        except asyncio.CancelledError:
            self._waiting[priority].pop(ticket, None)
            if not place.cancelled():  # it was given just before
                self._release()
            raise

    def _release(self) -> None:
        while queue := self._next_queue():
            _, place = queue.popitem(last=False)
            if not place.done():  # done: cancelled, and its caller has not run since
                place.set_result(None)
                return
        self._free += 1
        self._held -= 1

    def _next_queue(self) -> OrderedDict[int, asyncio.Future[None]] | None:
        waiting = [queue for queue in self._waiting.values() if queue]
        if len(waiting) > 1:
            self._turn = (self._turn + 1) % _FAIR_TURN
            if self._turn == 0:
                return min(waiting, key=lambda queue: next(iter(queue)))
        return waiting[0] if waiting else None
