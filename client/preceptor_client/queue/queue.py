"""The queue, for the trainer that submits cohorts and reads their outcomes, and for the workers that judge them.

In: `JudgeTask`s. Out: for each exactly one `Outcome` on its run's stream: a response, or why there is none.
Guarantees: a cohort of a run has one task and one outcome, however often it is submitted, delivered or answered. A
task leaves `cohorts` in the same atomic step that stores its outcome, and an outcome stays until it is forgotten.
Both streams are bounded: a producer waits for room, nothing is dropped. What Redis itself lost (a fail-over, no
append-only file) is named by `missing`. What is handed over together goes in few calls, at most `_AT_ONCE` cohorts or
about `_BYTES_AT_ONCE` a call, so that no other client of Redis waits long; workers that settle at the same time share
a call.
Waits for: `submit` for room, `take` for a task, `outcomes` for an outcome, each woken by Redis; and every call for a
Redis that is away, full or read-only, at most `patience_s`.
Raises `QueueUnavailable` and `QueueMisfit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeVar

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from preceptor_client import tracing
from preceptor_client.contract import JudgeResponse, JudgeTask
from preceptor_client.queue import scripts
from preceptor_client.queue.connection import BLOCK_MS
from preceptor_client.queue.records import (
    Delivery,
    Fields,
    Outcome,
    UnreadableEntry,
    as_text,
    printable,
    read_outcome,
    read_task,
)
from preceptor_client.queue.riding import Ride, Trouble, blocking_read, end
from preceptor_client.queue.steps import GROUP, IN_BYTES, Keys, Steps
from preceptor_client.queue.together import Together

_PAGE = 256
_AT_ONCE = 64
_AT_LEAST = 8
_BYTES_AT_ONCE = 2**20
_LEFT_BEHIND_MS = 600_000
"""A worker without a task and without a word for this long is taken off the group."""

_TASK, _RESPONSE = TypeAdapter(JudgeTask), TypeAdapter(JudgeResponse)
T = TypeVar("T")
Item = list[str | bytes]
Entry = tuple[str, Fields, int, str]
"""Id, content, attempt, last error."""


class CohortQueue:
    """One side of the queue. `redis` comes from `connect`.

    `bound` is how many cohorts may be open over all runs; `run_bound` how many one run may have that are open, or ended
    and not yet forgotten: more than a trainer keeps between two checkpoints. A task is delivered at most
    `max_deliveries` times. `on_trouble` hears of every failed try, and None when it is over.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        bound: int = 1024,
        run_bound: int = 4096,
        namespace: str = "preceptor",
        max_deliveries: int = 5,
        patience_s: float | None = None,
        on_trouble: Callable[[Trouble | None], None] = lambda trouble: None,
    ) -> None:
        for name, value in (("bound", bound), ("run_bound", run_bound), ("max_deliveries", max_deliveries)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self._redis = redis
        self._execute: Any = redis.execute_command
        self._bound = bound
        self._run_bound = run_bound
        self._max_deliveries = max_deliveries
        self._keys = Keys(namespace)
        self._ride = Ride(redis, patience_s=patience_s, on_trouble=on_trouble)
        self._step = Steps(redis, self._keys, self._ride)
        self._given: dict[str, set[str]] = {}
        self._settle = Together(self._settle_all)

    async def submit(self, task: JudgeTask) -> bool:
        """Append `task`, waiting for room. False if this cohort of this run is known already: then nothing changes.

        Also False if only the answer to a first try was lost, so that it is there either way.
        """
        [new] = await self.submit_many([task])
        return new

    async def submit_many(self, tasks: Sequence[JudgeTask]) -> list[bool]:
        """The same for each, in their order. If it is broken off, the first ones are there and the rest are not."""
        new: list[bool] = []
        items = ((task.run, task.request.cohort.id, _TASK.dump_json(task)) for task in tasks)
        for run, group in _groups(items):
            size = len(group)
            while group:
                parts = chain.from_iterable(group[:size])
                marker, *states = await self._step(scripts.SUBMIT, self._bound, self._run_bound, run, *parts)
                new += [state == 1 for state in states]
                group = group[len(states) :]
                size = max(_AT_LEAST, 2 * len(states))  # where room is scarce, little is sent in vain
                if marker:
                    await self._wait(self._keys.room, marker, count=1)
        return new

    async def missing(self, run: str, cohort_ids: Sequence[str]) -> list[str]:
        """Those of which Redis knows nothing any more: it came back without its last writes. Submit them again."""
        gone: list[str] = []
        for page in _pages(cohort_ids):
            gone += [page[place] for place in await self._step(scripts.MISSING, run, *page)]
        return gone

    async def outcomes(self, run: str) -> AsyncGenerator[Outcome]:
        """Every outcome of `run` not yet forgotten, oldest first, then each new one as it comes. Never ends.

        After a break it starts over, since the Redis that answers may be another, and leaves out what it gave before.
        An outcome that cannot be read goes to the dead letters.
        """
        async with aclosing(self.outcome_pages(run)) as pages:
            async for page in pages:
                for outcome in page:
                    yield outcome

    async def outcome_pages(self, run: str) -> AsyncGenerator[list[Outcome]]:
        """The same, as many at once as there are: one at least, a few hundred at most.

        The next page is read while this one is dealt with: close the generator (`aclosing`) to stop that.
        """
        stream = self._keys.verdicts(run)
        given = self._given[run] = set()
        last, breaks = "0-0", self._ride.breaks
        reading = asyncio.create_task(self._wait(stream, last, count=_PAGE))
        try:
            while True:
                entries = await reading
                if not entries:
                    # A read whose time ran out and one that found nothing look the same: this tells them apart.
                    await self._ride.through(self._redis.ping)
                if breaks != self._ride.breaks:
                    last, breaks, entries = "0-0", self._ride.breaks, []
                elif entries:
                    last = entries[-1][0]
                # The next page comes while this one is decoded and dealt with.
                reading = asyncio.create_task(self._wait(stream, last, count=_PAGE))
                page = []
                for entry_id, fields in entries:
                    if entry_id in given:
                        continue
                    try:
                        page.append(read_outcome(entry_id, fields))
                    except UnreadableEntry as error:
                        await self._step(scripts.BURY_OUTCOME, run, error.cohort, entry_id, printable(str(error)))
                if page:
                    given.update(outcome.entry_id for outcome in page)
                    yield page
        finally:
            await end(reading)

    async def forget(self, run: str, outcomes: Sequence[Outcome]) -> None:
        """Remove outcomes whose effect is durable; frees room for as many cohorts."""
        for page in _pages(outcomes):
            named = [text for outcome in page for text in (outcome.cohort_id, outcome.entry_id)]
            await self._step(scripts.FORGET, run, *named)
            self._given.get(run, set()).difference_update(outcome.entry_id for outcome in page)

    async def withdraw(self, run: str, cohort_ids: Sequence[str] | None = None) -> int:
        """Take back the tasks (waiting or in flight) and outcomes of these cohorts, or of all; how many there were.

        A worker that still has one of them learns so when it renews its lease, and cannot settle it.
        """
        if cohort_ids is None:
            return int(await self._step(scripts.WITHDRAW, run))
        return sum([int(await self._step(scripts.WITHDRAW, run, *page)) for page in _pages(cohort_ids)])

    async def runs(self) -> list[str]:
        """Names of the runs with a cohort that is not forgotten."""
        names: Any = await self._ride.through(lambda: self._redis.smembers(self._keys.runs))
        return sorted(names)

    async def open_group(self) -> None:
        """Make the workers' group if it is not there yet, and take off it those that are long gone."""
        await self._step(scripts.OPEN, _LEFT_BEHIND_MS)

    async def take(self, consumer: str, *, count: int = 1, lease_ms: int = 15_000) -> list[Delivery]:
        """Up to `count` tasks: first those held by another for longer than its lease, or handed back; then new ones.

        Returns an empty list after a second without any, or at once if it had to make the group (in a new Redis).
        What cannot be read, and what was delivered too often, is buried, not returned.
        """
        taken = await self._step(scripts.TAKE, consumer, count, lease_ms, in_bytes=True)
        if taken is None:
            await self.open_group()
            return []
        found = [_entry(*each) for each in taken] or await self._new(consumer, count)
        deliveries = []
        for entry_id, fields, attempt, last_error in found:
            try:
                task = read_task(fields)
            except UnreadableEntry as error:
                await self._bury(entry_id, error.run, error.cohort, str(error), attempt)
                continue
            delivery = Delivery(entry_id, task, attempt, last_error or None)
            if attempt > self._max_deliveries:
                reason = f"it was delivered {attempt - 1} times and not answered"
                if last_error:
                    reason += f"; the last error: {last_error}"
                await self._bury(entry_id, task.run, task.request.cohort.id, reason, attempt - 1)
            else:
                deliveries.append(delivery)
        return deliveries

    async def renew(self, consumer: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Begin their leases anew. Returns those it holds no longer: ended, withdrawn, or taken over by another."""
        ids = [delivery.entry_id for delivery in deliveries]
        return [deliveries[place] for place in await self._step(scripts.RENEW, consumer, *ids)]

    async def hand_back(self, consumer: str, deliveries: Sequence[Delivery], error: str | None = None) -> None:
        """Let others take them at once. With an `error` it counts as an attempt, without one it does not."""
        ids = [delivery.entry_id for delivery in deliveries]
        await self._step(scripts.HAND_BACK, consumer, int(error is not None), printable(error or ""), *ids)

    async def settle(self, delivery: Delivery, response: JudgeResponse) -> bool:
        """Replace the task by its response. False if it has ended already: another was first, or it was withdrawn.

        What is settled meanwhile by others goes with the next call, together.
        """
        return await self._settle((delivery, response, tracing.traceparent()))

    async def settle_many(self, answers: Sequence[tuple[Delivery, JudgeResponse]]) -> list[bool]:
        """The same for each."""
        trace = tracing.traceparent()
        return await self._settle_all([(delivery, response, trace) for delivery, response in answers])

    async def _settle_all(self, answers: Sequence[tuple[Delivery, JudgeResponse, str | None]]) -> list[bool]:
        settled: list[bool] = []
        items = (
            (held.task.run, held.task.request.cohort.id, held.entry_id, trace or "", _RESPONSE.dump_json(response))
            for held, response, trace in answers
        )
        for run, group in _groups(items):
            late = set(await self._step(scripts.SETTLE, run, *chain.from_iterable(group)))
            settled += [place not in late for place in range(len(group))]
        return settled

    async def bury(self, delivery: Delivery, reason: str) -> bool:
        """Move the task to the dead letters and tell its run. False if it has ended already."""
        task = delivery.task
        return await self._bury(delivery.entry_id, task.run, task.request.cohort.id, reason, delivery.attempt)

    async def leave(self, consumer: str) -> None:
        """Take the worker off the group, if it holds nothing."""
        await self._step(scripts.LEAVE, consumer)

    async def _bury(self, entry_id: str, run: str, cohort: str, reason: str, attempts: int) -> bool:
        return bool(await self._step(scripts.BURY, run, cohort, entry_id, printable(reason), attempts))

    async def _new(self, consumer: str, count: int) -> list[Entry]:
        command = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS")
        try:
            entries = await self._read(*command, self._keys.cohorts, ">")
        except ResponseError as error:
            if "NOGROUP" not in str(error):  # the queue was emptied under it: the next call makes the group
                raise
            return []
        return [(entry_id, fields, 1, "") for entry_id, fields in entries]

    async def _wait(self, stream: str, after: str, *, count: int) -> list[tuple[str, Fields]]:
        return await self._read("XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", stream, after)

    async def _read(self, *command: str | int) -> list[tuple[str, Fields]]:
        entries = await self._ride.through(lambda: blocking_read(self._execute(*command, **IN_BYTES)))
        return [(as_text(entry_id), fields) for entry_id, fields in entries]


def _entry(entry_id: bytes, attempt: int, error: bytes, flat: Sequence[bytes]) -> Entry:
    return as_text(entry_id), dict(zip(flat[::2], flat[1::2], strict=True)), attempt, as_text(error)


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]


def _groups(items: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, list[Item]]]:
    """Run by run, as many as go in one call; first in an item stands its run, last its payload."""
    for run, of_run in groupby(items, key=itemgetter(0)):
        group: list[Item] = []
        size = 0
        for _, *item in of_run:
            if group and (len(group) == _AT_ONCE or size + len(item[-1]) > _BYTES_AT_ONCE):
                yield run, group
                group, size = [], 0
            group.append(item)
            size += len(item[-1])
        yield run, group
