"""What an operator does with the queue: look, read the dead letters, put them back, throw away.

In: a namespace, runs, entries. Out: `QueueStatus`, `DeadLetter`s, counts.
Guarantees: nothing is thrown away that is not named by the caller; a task put back is taken off the dead letters in
the same atomic step. Raises `QueueUnavailable` (it asks once, unless told to be patient) and `QueueMisfit`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from preceptor_client.queue import scripts
from preceptor_client.queue.records import DeadLetter, QueueStatus, RunStatus, read_letter
from preceptor_client.queue.riding import Ride
from preceptor_client.queue.steps import Keys, Steps

_PAGE = 100
_LIVE_MS = 15_000
"""A worker asks for tasks every second, or renews its leases."""
_RUN_FIELDS = 6
_ENTRY_ID = re.compile(r"\d{1,18}-\d{1,18}")


class QueueOperations:
    """The queue of one namespace. `redis` comes from `connect`."""

    def __init__(self, redis: Redis, *, namespace: str = "preceptor", patience_s: float | None = 0.0) -> None:
        self._redis = redis
        self._keys = Keys(namespace)
        self._ride = Ride(redis, patience_s=patience_s)
        self._step = Steps(redis, self._keys, self._ride)

    async def status(self) -> QueueStatus:
        """How full every stream is, at one moment."""
        length, in_flight, dead, workers, oldest, *rows = await self._step(scripts.STATUS, _LIVE_MS)
        runs = {
            run: RunStatus(waiting, at_worker, answered, buried, _seconds(age))
            for run, waiting, at_worker, answered, buried, age in zip(*[iter(rows)] * _RUN_FIELDS, strict=True)
            if run
        }
        return QueueStatus(max(0, length - in_flight), in_flight, dead, _seconds(oldest), workers, runs)

    async def dead(self, run: str | None = None, count: int = 100) -> list[DeadLetter]:
        """The oldest `count` dead letters, of `run` or of all."""
        letters: list[DeadLetter] = []
        async for letter in self._letters(run):
            if len(letters) == count:
                break
            letters.append(letter)
        return letters

    async def replay(self, entry_ids: Sequence[str] | None = None, run: str | None = None, *, bound: int = 1024) -> int:
        """Put these dead letters back into the queue, or those of `run`, or all; how many were.

        Stays where it is: a letter without a task that can be told, one whose cohort was submitted again since, and
        the rest once `bound` cohorts are open. Raises LookupError if one that was named is not there.
        """
        if entry_ids is None:
            entry_ids = [letter.entry_id async for letter in self._letters(run)]
        elif gone := [entry_id for entry_id in entry_ids if not await self._is_there(entry_id)]:
            raise LookupError(f"no dead letter {', '.join(gone)}")
        replayed = 0
        for entry_id in entry_ids:
            outcome = await self._step(scripts.REPLAY, bound, entry_id)
            if outcome == "full":
                break
            replayed += outcome == "replayed"
        return replayed

    async def purge_dead(self, run: str | None = None) -> int:
        """Throw dead letters away, those of `run` or all; how many there were."""
        ids = [letter.entry_id async for letter in self._letters(run)]
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        return sum([int(await self._step(scripts.PURGE, *page)) for page in pages])

    async def purge_run(self, run: str) -> int:
        """Throw away all of a run: tasks waiting and in flight, outcomes, dead letters; how many cohorts there were."""
        letters = {letter.cohort_id async for letter in self._letters(run)}
        known: Any = await self._ride.through(lambda: self._redis.hkeys(self._keys.known(run)))
        await self._step(scripts.WITHDRAW, run)
        await self.purge_dead(run)
        return len(letters | set(known))

    async def _letters(self, run: str | None) -> AsyncIterator[DeadLetter]:
        after = "-"
        while entries := await self._page(after):
            for entry_id, fields in entries:
                letter = read_letter(entry_id, fields)
                if run is None or letter.run == run:
                    yield letter
            after = f"({entries[-1][0]}"

    async def _page(self, after: str) -> list[tuple[str, dict[str, str]]]:
        entries: Any = await self._ride.through(lambda: self._redis.xrange(self._keys.dead, min=after, count=_PAGE))
        return list(entries)

    async def _is_there(self, entry_id: str) -> bool:
        if not _ENTRY_ID.fullmatch(entry_id):
            return False
        return bool(await self._ride.through(lambda: self._redis.xrange(self._keys.dead, min=entry_id, max=entry_id)))


def _seconds(age_ms: int) -> float | None:
    return None if age_ms < 0 else age_ms / 1000
