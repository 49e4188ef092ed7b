"""Cohorts between admission and the end of their update, bounded by construction. Pure, and a thin async wrapper.

    admit -> [admitted] --answer--> [ready] --take--> [training] --release--> gone
                 \\-------- drop --------> gone

With B cohorts a step and a staleness limit S there are (S + 1) B slots. A cohort takes one before it is sampled and
frees it when it is dropped, or when the weights of the update that used it are in the policy engine. The guarantee: a
cohort sampled at version v is trained at a version <= v + S, never later and never thrown away for its age.

Why it holds: `take` hands out the oldest ready cohorts, and only if afterwards those left can still meet their
limits: of what was sampled at version v or before, at most B for each of the steps that remain to v + S. If slow
verdicts make that fail, it waits for them. When a cohort is admitted at v the slots allow S B others besides the B of
one step, so once every verdict is there the oldest-first batch always fits: the wait is for a judge, never for ever.

Example, B = 1, S = 1: a and b are admitted at version 0. b is answered first and trained at 0; its slot goes to c,
sampled at 1. c is answered before a, but training c at version 1 would leave a for version 2 > 0 + 1: the step waits
for a.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Entry(Generic[T]):
    version: int
    item: T | None = None


class StalenessBuffer(Generic[T]):
    """The state machine. Ids are the caller's; a wrong id or order raises ValueError."""

    def __init__(self, batch: int, limit: int) -> None:
        self._batch = batch
        self._limit = limit
        self._waiting: dict[str, _Entry[T]] = {}  # admitted or ready, in order of admission
        self._training = 0

    @property
    def free(self) -> int:
        """Slots that may be admitted now."""
        return (self._limit + 1) * self._batch - len(self._waiting) - self._training

    @property
    def ids(self) -> list[str]:
        """Of the cohorts admitted or ready, oldest admission first."""
        return list(self._waiting)

    @property
    def ready(self) -> int:
        """Cohorts that may be trained on."""
        return sum(entry.item is not None for entry in self._waiting.values())

    @property
    def outstanding(self) -> int:
        """Admitted, not answered."""
        return len(self._waiting) - self.ready

    def admit(self, id: str, version: int) -> None:
        """`version` is the policy engine's: the cohort will be sampled at it or at a later one."""
        if self.free <= 0:
            raise ValueError("no slot is free")
        if id in self._waiting:
            raise ValueError(f"cohort {id} is already admitted")
        self._waiting[id] = _Entry(version)

    def sampled(self, id: str, version: int) -> None:
        """The cohort was sampled at `version`, not below that of its admission."""
        entry = self._entry(id)
        if version < entry.version:
            raise ValueError(f"cohort {id} was admitted at version {entry.version}, so not sampled at {version}")
        entry.version = version

    def answer(self, id: str, item: T) -> None:
        """The cohort may be trained on as `item`."""
        self._entry(id).item = item

    def drop(self, id: str) -> None:
        """The cohort will not be trained on; its slot is free at once."""
        self._entry(id)
        del self._waiting[id]

    def take(self, version: int) -> list[T] | None:
        """The batch to train on at `version`, or None if there is none yet."""
        by_age = sorted(self._waiting.items(), key=lambda pair: pair[1].version)
        chosen = [(id, entry.item) for id, entry in by_age if entry.item is not None][: self._batch]
        if len(chosen) < self._batch:
            return None
        ids = {id for id, _ in chosen}
        left = [entry.version for id, entry in by_age if id not in ids]
        for older, sampled_at in enumerate(left, start=1):
            if older > (sampled_at + self._limit - version) * self._batch:
                return None
        for id, _ in chosen:
            del self._waiting[id]
        self._training += self._batch
        return [item for _, item in chosen if item is not None]

    def release(self) -> None:
        """What was taken has been trained on and the policy engine has the new weights."""
        self._training = 0

    def _entry(self, id: str) -> _Entry[T]:
        if id not in self._waiting:
            raise ValueError(f"cohort {id} is not admitted")
        return self._waiting[id]


class CohortBuffer(Generic[T]):
    """`StalenessBuffer` for tasks of one event loop: each waits until its turn has come, none polls."""

    def __init__(self, batch: int, limit: int) -> None:
        self.state: StalenessBuffer[T] = StalenessBuffer(batch, limit)
        self._changed = asyncio.Condition()
        self._closed = False

    async def room(self) -> int:
        """Wait for a free slot; how many there are."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state.free > 0)
            return self.state.free

    async def answer(self, id: str, item: T) -> None:
        """See `StalenessBuffer.answer`."""
        async with self._changed:
            self.state.answer(id, item)
            self._changed.notify_all()

    async def drop(self, id: str) -> None:
        """See `StalenessBuffer.drop`."""
        async with self._changed:
            self.state.drop(id)
            self._changed.notify_all()

    async def release(self) -> None:
        """See `StalenessBuffer.release`."""
        async with self._changed:
            self.state.release()
            self._changed.notify_all()

    async def close(self) -> None:
        """No further cohort will be admitted."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def take(self, version: int) -> list[T] | None:
        """Wait for the batch of `version`; None when the buffer is closed and too little is left for one."""
        async with self._changed:
            batch: list[T] | None = None

            def taken_or_over() -> bool:
                nonlocal batch
                batch = self.state.take(version)
                return batch is not None or (self._closed and not self.state.outstanding)

            await self._changed.wait_for(taken_or_over)
            return batch
