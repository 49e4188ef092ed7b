"""Batches in Redis: every state that a batch has, so that any replica of the service can go on with any of them.

    submit -> items -> take ... settle -> results -> results_after / follow
                        ^  |
                        +--+  a lease that ran out, or was given back

In: requests and their results, of an owner (the caller's name). Out: `Batch`es, items to judge, numbered results.
Guarantees: an item gets at most one result, and keeps its place until it has it; whoever holds an item loses it to
others only after its lease, and it is counted how often one is begun; all keys of a batch expire together, `ttl_s`
after it was submitted. Batches take turns, item by item, each in its own order.
Waits for: `take` for an item, `follow` for a result; each is woken by Redis, none polls.
Raises `BatchReusedError`, `BatchesFullError`, `UnknownBatchError`, and `redis.exceptions.RedisError` when Redis cannot
be used.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from redis.asyncio import Redis

from preceptor_client.contract import Batch, BatchRequest, BatchResult, BatchState
from preceptor_client.queue import blocking_read
from preceptor_services.batches import scripts

_BLOCK_MS = 1_000
_PAGE = 256
_STAGED_S = 600
"""A submission that was broken off is forgotten after this long."""


class BatchReusedError(ValueError):
    """The id names a batch with other items."""


class BatchesFullError(RuntimeError):
    """Too many items wait already."""


class UnknownBatchError(LookupError):
    """The owner has no such batch, or has it no more."""


@dataclass(frozen=True)
class Item:
    """One request of a batch, as JSON, in a replica's hands for the `attempt`-th time."""

    ref: str
    index: int
    request: str
    attempt: int = 1
    last_error: str = ""
    """Of the attempt before; empty if nobody could say."""

    @property
    def owner(self) -> str:
        """Who submitted it."""
        return self.ref.rpartition("/")[0]


@dataclass(frozen=True)
class Numbered:
    """Result number `number` (from 1) of a batch, as the JSON of a `BatchResult`."""

    number: int
    result: str


class BatchStore:
    """All batches of a namespace. `redis` must decode responses to str; see `preceptor_client.queue.connect`."""

    def __init__(self, redis: Redis, *, namespace: str, ttl_s: int, max_waiting: int) -> None:
        self._redis = redis
        self._prefix = f"{namespace}:batch:"
        self._ttl_s = ttl_s
        self._max_waiting = max_waiting
        shared = f"{namespace}:batches"
        self._waiting, self._wake = f"{shared}:waiting", f"{shared}:wake"
        self._keys = [f"{shared}:open", f"{shared}:leases", self._waiting, self._wake]
        self._open = redis.register_script(scripts.OPEN)
        self._take = redis.register_script(scripts.TAKE)
        self._settle = redis.register_script(scripts.SETTLE)
        self._renew = redis.register_script(scripts.RENEW)
        self._release = redis.register_script(scripts.RELEASE)
        self._cancel = redis.register_script(scripts.CANCEL)

    async def submit(self, owner: str, request: BatchRequest) -> Batch:
        """Keep a new batch, or find the same one that is there already."""
        batch_id = request.id or uuid.uuid4().hex
        ref = f"{owner}/{batch_id}"
        if await self.waiting() >= self._max_waiting and not await self._redis.exists(self._prefix + ref):
            raise self._full()
        staged = f"{self._prefix}staged:{uuid.uuid4().hex}"
        fingerprint = hashlib.sha256()
        items = enumerate(item.model_dump_json(exclude_none=True) for item in request.items)
        while page := dict(islice(items, _PAGE)):
            for item in page.values():
                fingerprint.update(item.encode() + b"\n")
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(staged, mapping=page)  # type: ignore[arg-type]  # indices as keys
                pipeline.expire(staged, _STAGED_S)
                await pipeline.execute()
        created_ms = int(time.time() * 1000)
        times = [created_ms, created_ms + self._ttl_s * 1000]
        outcome = await self._run(self._open, ref, staged, fingerprint.hexdigest(), self._max_waiting, *times)
        if outcome == "other":
            raise BatchReusedError(f"the batch {batch_id!r} is there with other items: use another id")
        if outcome == "full":
            raise self._full()
        return await self.status(owner, batch_id)

    async def status(self, owner: str, batch_id: str) -> Batch:
        """The batch as it stands."""
        found: Any = await self._redis.hgetall(f"{self._prefix}{owner}/{batch_id}")
        if not found:
            raise UnknownBatchError(f"no batch {batch_id!r}: it never was, or it has expired")
        return Batch(
            id=batch_id,
            state=BatchState(found["state"]),
            total=int(found["total"]),
            done=int(found["done"]),
            failed=int(found["failed"]),
            created_at=_time(found["created_at"]),
            expires_at=_time(found["expires_at"]),
        )

    async def cancel(self, owner: str, batch_id: str) -> Batch:
        """Stop the batch; one that has ended stays as it is."""
        await self._run(self._cancel, f"{owner}/{batch_id}")
        return await self.status(owner, batch_id)

    async def results_after(self, owner: str, batch_id: str, number: int) -> AsyncIterator[Numbered]:
        """The results there are, from the one after `number` on, in the order in which they became ready."""
        stream = f"{self._prefix}{owner}/{batch_id}/results"
        more = True
        while more:
            entries: Any = await self._redis.xrange(stream, min=f"({number}-0", count=_PAGE)
            for numbered in _results(entries):
                number = numbered.number
                yield numbered
            more = len(entries) == _PAGE and "end" not in entries[-1][1]

    async def follow(
        self, owner: str, batch_id: str, number: int, stop: asyncio.Event | None = None
    ) -> AsyncIterator[Numbered]:
        """As `results_after`, then each further result as it comes. Ends when the batch does, and within a second of
        `stop`; raises UnknownBatchError when it expires."""
        stream = f"{self._prefix}{owner}/{batch_id}/results"
        while stop is None or not stop.is_set():
            entries = await blocking_read(self._redis.xread({stream: f"{number}-0"}, count=_PAGE, block=_BLOCK_MS))
            for numbered in _results(entries):
                number = numbered.number
                yield numbered
            if entries and "end" in entries[-1][1]:
                return
            if not entries and (await self.status(owner, batch_id)).state is not BatchState.RUNNING:
                # Either `number` lies beyond the end, or the end came since the last read.
                async for numbered in self.results_after(owner, batch_id, number):
                    yield numbered
                return

    async def take(self, count: int, lease_ms: int) -> list[Item]:
        """Up to `count` items to judge; an empty list after a second without any."""
        last, *found = await self._run(self._take, count, lease_ms)
        if not found:
            await blocking_read(self._redis.xread({self._wake: last}, count=1, block=_BLOCK_MS))
            _, *found = await self._run(self._take, count, lease_ms)
        return [
            Item(ref, int(index), request, attempt, error)
            for ref, index, request, attempt, error in zip(*[iter(found)] * 5, strict=True)
        ]

    async def settle(self, item: Item, result: BatchResult) -> bool:
        """Store an item's result. False if it needs none: it has one, or its batch ended or expired."""
        # Escaped, since a line separator that JSON allows in a string (U+2028) would break an event in two.
        text = result.model_dump_json(ensure_ascii=True)
        return bool(await self._run(self._settle, item.ref, item.index, text, int(result.problem is not None)))

    async def renew(self, items: Sequence[Item], lease_ms: int) -> list[Item]:
        """Hold `items` for longer. Returns those that need no result any more."""
        lost = await self._run(self._renew, lease_ms, *_places(items))
        return [items[place] for place in lost]

    async def release(self, items: Sequence[Item], error: str = "") -> None:
        """Let others take `items` at once. Without an `error` this was no attempt."""
        await self._run(self._release, error, *_places(items))

    async def waiting(self) -> int:
        """Items without a result, over all batches."""
        return int(await self._redis.hget(self._waiting, "total") or 0)

    async def _run(self, script: Any, *arguments: object) -> Any:
        return await script(keys=self._keys, args=[self._prefix, *arguments])

    def _full(self) -> BatchesFullError:
        return BatchesFullError(f"{self._max_waiting} items may wait for their results, and do: come back later")


def _places(items: Sequence[Item]) -> Iterator[str | int]:
    for item in items:
        yield from (item.ref, item.index)


def _results(entries: Sequence[tuple[str, dict[str, str]]]) -> Iterator[Numbered]:
    for entry_id, fields in entries:
        if "result" in fields:
            yield Numbered(int(entry_id.partition("-")[0]), fields["result"])


def _time(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
