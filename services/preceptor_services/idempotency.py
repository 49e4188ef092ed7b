"""`Idempotency-Key`: work that a client asks for twice is done once.

In: an owner and its key, a fingerprint of the request, and the work. Out: the work's result, from this or an earlier
request with that key.
Guarantees: a duplicate of a request in flight shares its one computation, which goes on even if the first client
hangs up; finished results are kept, the oldest dropped at the bound; what raised, or what `keep` does not want, is
not kept, so that a repeat tries again. Raises `KeyReusedError` when the key came with another request before. Waits for
the work.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class KeyReusedError(ValueError):
    """The same key came with different requests."""


@dataclass(frozen=True)
class _Work(Generic[ResultT]):
    fingerprint: bytes
    task: asyncio.Task[ResultT]


class Replays(Generic[ResultT]):
    """The work in flight and the latest results that `keep` wants, by owner and key."""

    def __init__(self, bound: int, keep: Callable[[ResultT], bool] = lambda result: True) -> None:
        self._bound = bound
        self._keep = keep
        self._works: OrderedDict[tuple[str, str], _Work[ResultT]] = OrderedDict()

    async def once(
        self, key: str, fingerprint: bytes, work: Callable[[], Awaitable[ResultT]], *, owner: str = ""
    ) -> tuple[ResultT, bool]:
        """The result of `work`, and whether it is an earlier request's. Owners see nothing of each other's keys."""
        place = (owner, key)
        known = self._works.get(place)
        if known is not None and known.fingerprint != fingerprint:
            raise KeyReusedError(f"Idempotency-Key {key!r} came with a different request before: use a new key")
        if known is None:
            task = asyncio.ensure_future(_run(work))
            self._works[place] = _Work(fingerprint, task)
            task.add_done_callback(lambda done: self._settle(place, done))
            return await asyncio.shield(task), False
        self._works.move_to_end(place)
        return await asyncio.shield(known.task), True

    def _settle(self, place: tuple[str, str], task: asyncio.Task[ResultT]) -> None:
        if task.cancelled() or task.exception() is not None or not self._keep(task.result()):
            self._works.pop(place, None)
        finished = [place for place, work in self._works.items() if work.task.done()]
        for oldest in finished[: max(0, len(finished) - self._bound)]:
            del self._works[oldest]


async def _run(work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    return await work()
