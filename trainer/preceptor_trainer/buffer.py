"""Cohorts between admission and the end of their update, bounded by construction. Pure, and a thin async wrapper.

    admit -> [admitted] --sampled--> [outstanding] --answer--> [ready] --take--> [training] --release--> gone
                 \\-------------------------- drop, release (too old) --------------> gone

With B cohorts a step and a staleness limit S there are (S + 1) B slots. A cohort takes one before it is sampled and
frees it when it is dropped, or when the weights of the update that used it are in the policy engine. The guarantee: a
cohort sampled at version v is trained at a version <= v + S. Late verdicts have it one of two ways:

    wait  no cohort is ever thrown away for its age: a step waits for the verdicts without which one would be
    drop  no step waits for a judge while a batch is ready: `release` throws away what is too old for the next one

Why it holds with `wait`: call a time t good if, of what is held and was sampled at v or before, there are at most B
for each of the v + S - t + 1 steps from t on in which it may still be trained. `take` at t hands out the oldest ready
cohorts, and only if what is left is good at t + 1. Nothing else can spoil it: a drop only lowers the counts; a
cohort sampled later than it was admitted has more steps, not less; and one admitted at t is, with all the others, one
of (S + 1) B for S + 1 steps, or, while the update of t holds B slots, one of S B for the S steps from t + 1 on.
Once every verdict is there the oldest B are the ready ones and taking them leaves what is good, so the wait is for a
judge (or the sampling), never for ever.

With `drop` the same rule holds for what is not sampled yet: `take` waits for the policy engine, which needs no judge,
but not for verdicts. So `release` finds nothing too old that is still being sampled, and throws the rest away.

Example, B = 1, S = 1: a and b are admitted at version 0. b is answered first and trained at 0; its slot goes to c,
sampled at 1. c is answered before a, but training c at version 1 would leave a for version 2 > 0 + 1: with `wait` the
step waits for a; with `drop` it trains c, and a goes.

`batches` says how many are still to be taken in all: no more are admitted than those need, and what is dropped or
thrown away is made up for, so at the end as many were admitted as trained or dropped, and nothing is left over.

`in_rounds` makes what is admitted and trained depend on the outcomes alone, not on the order of the answers: nothing
is admitted or taken while an answer is outstanding, nor admitted while a batch is ready or training.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


@dataclass
class _Entry(Generic[T]):
    version: int
    sampled: bool = False
    item: T | None = None


class StalenessBuffer(Generic[T]):
    """The state machine. Ids are the caller's; a wrong id or order raises ValueError."""

    def __init__(
        self,
        batch: int,
        limit: int,
        *,
        batches: int,
        policy: Literal["wait", "drop"] = "wait",
        in_rounds: bool = False,
    ) -> None:
        self._batch = batch
        self._limit = limit
        self._batches = batches
        self._policy = policy
        self._in_rounds = in_rounds
        self._waiting: dict[str, _Entry[T]] = {}  # admitted, outstanding or ready, in order of admission
        # Of those, by version: so that looking whether there is a batch takes no longer the more cohorts there are.
        self._held: Counter[int] = Counter()
        self._sampled: Counter[int] = Counter()
        self._ready: Counter[int] = Counter()
        self._training = 0

    @property
    def free(self) -> int:
        """Cohorts that may be admitted now; in rounds, all of them before anything else happens."""
        if self._in_rounds and (self._training or self.outstanding or self.ready >= self._batch):
            return 0
        return self._slots

    @property
    def ids(self) -> list[str]:
        """Of the cohorts admitted and not yet taken, oldest admission first."""
        return list(self._waiting)

    @property
    def ready(self) -> int:
        """Cohorts that may be trained on."""
        return self._ready.total()

    @property
    def outstanding(self) -> int:
        """Admitted, not answered."""
        return len(self._waiting) - self.ready

    def held(self, id: str) -> bool:
        """Whether the cohort is admitted and not yet taken, dropped or thrown away."""
        return id in self._waiting

    def admit(self, id: str, version: int) -> None:
        """`version` is the policy engine's: the cohort will be sampled at it or at a later one."""
        if self._slots <= 0:
            raise ValueError("no slot is free")
        if id in self._waiting:
            raise ValueError(f"cohort {id} is already admitted")
        entry = self._waiting[id] = _Entry[T](version)
        self._count(entry, 1)

    def sampled(self, id: str, version: int) -> None:
        """The cohort was sampled at `version`, not below that of its admission."""
        entry = self._entry(id)
        if version < entry.version:
            raise ValueError(f"cohort {id} was admitted at version {entry.version}, so not sampled at {version}")
        self._count(entry, -1)
        entry.version, entry.sampled = version, True
        self._count(entry, 1)

    def answer(self, id: str, item: T) -> None:
        """The cohort, once sampled, may be trained on as `item`."""
        entry = self._entry(id)
        if not entry.sampled or entry.item is not None:
            raise ValueError(f"cohort {id} is {'already answered' if entry.sampled else 'not sampled'}")
        self._count(entry, -1)
        entry.item = item
        self._count(entry, 1)

    def drop(self, id: str) -> None:
        """The cohort will not be trained on; its slot is free at once."""
        self._entry(id)
        self._remove(id)

    def take(self, version: int) -> list[T] | None:
        """The batch to train on at `version`, or None if there is none yet."""
        if self._training:
            raise ValueError("the last batch is not released")
        if not self._batches:
            raise ValueError("all batches have been taken")
        if self._in_rounds and self.outstanding:
            return None
        if not self._has_batch(version):
            return None
        ready = [(id, entry) for id, entry in self._waiting.items() if entry.item is not None]
        chosen = sorted(ready, key=lambda pair: pair[1].version)[: self._batch]
        for id, _ in chosen:
            self._remove(id)
        self._training = self._batch
        self._batches -= 1
        return [entry.item for _, entry in chosen if entry.item is not None]

    def release(self, version: int) -> list[str]:
        """What was taken has been trained on and the policy engine has the new weights, `version`. The cohorts thrown
        away because they are too old for it: none with `wait`.
        """
        self._training = 0
        stale = [id for id, entry in self._waiting.items() if entry.sampled and entry.version + self._limit < version]
        for id in stale:
            self._remove(id)
        return stale

    def _has_batch(self, version: int) -> bool:
        """Whether the oldest ready cohorts are enough, and what they leave is good at the next step."""
        wanted, left = self._batch, 0
        spoiled = False
        for sampled_at in sorted(self._held):
            taken = min(wanted, self._ready[sampled_at])
            wanted -= taken
            if self._policy == "wait":
                left += self._held[sampled_at] - taken
            else:
                left += self._held[sampled_at] - self._sampled[sampled_at]
            spoiled |= left > max(0, sampled_at + self._limit - version) * self._batch
        return not wanted and not spoiled

    @property
    def _slots(self) -> int:
        slots = (self._limit + 1) * self._batch - self._training
        return min(slots, self._batches * self._batch) - len(self._waiting)

    def _remove(self, id: str) -> None:
        self._count(self._waiting.pop(id), -1)

    def _count(self, entry: _Entry[T], by: int) -> None:
        for counter, counts in (
            (self._held, True),
            (self._sampled, entry.sampled),
            (self._ready, entry.item is not None),
        ):
            if counts:
                counter[entry.version] += by
                if not counter[entry.version]:
                    del counter[entry.version]

    def _entry(self, id: str) -> _Entry[T]:
        if id not in self._waiting:
            raise ValueError(f"cohort {id} is not held")
        return self._waiting[id]


class CohortBuffer(Generic[T]):
    """`StalenessBuffer` for tasks of one event loop: each waits until its turn has come, none polls."""

    def __init__(
        self,
        batch: int,
        limit: int,
        *,
        batches: int,
        policy: Literal["wait", "drop"] = "wait",
        in_rounds: bool = False,
    ) -> None:
        self.state: StalenessBuffer[T] = StalenessBuffer(
            batch, limit, batches=batches, policy=policy, in_rounds=in_rounds
        )
        self._changed = asyncio.Condition()
        self._closed = False

    def held(self, id: str) -> bool:
        """See `StalenessBuffer.held`."""
        return self.state.held(id)

    async def room(self) -> int:
        """Wait until cohorts may be admitted; how many."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state.free > 0)
            return self.state.free

    def admit(self, id: str, version: int) -> None:
        """See `StalenessBuffer.admit`. Nobody waits for it."""
        self.state.admit(id, version)

    async def sampled(self, id: str, version: int) -> None:
        """See `StalenessBuffer.sampled`."""
        async with self._changed:
            self.state.sampled(id, version)
            self._changed.notify_all()

    async def answer(self, id: str, item: T) -> bool:
        """See `StalenessBuffer.answer`; False if the cohort is no longer held."""
        async with self._changed:
            if not self.state.held(id):
                return False
            self.state.answer(id, item)
            self._changed.notify_all()
            return True

    async def drop(self, id: str) -> bool:
        """See `StalenessBuffer.drop`; False if the cohort is no longer held."""
        async with self._changed:
            if not self.state.held(id):
                return False
            self.state.drop(id)
            self._changed.notify_all()
            return True

    async def release(self, version: int) -> list[str]:
        """See `StalenessBuffer.release`."""
        async with self._changed:
            stale = self.state.release(version)
            self._changed.notify_all()
            return stale

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
