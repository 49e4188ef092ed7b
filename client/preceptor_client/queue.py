"""The queue between trainer and judge workers, on Redis Streams. Needs the extra `preceptor[queue]`.

    submit -> stream `cohorts` -> take ... settle -> stream `verdicts:<run>` -> responses -> forget
                                    \\-> bury -> stream `dead`

In: `JudgeTask`s from the trainer. Out: one `JudgeResponse` per task on the run's own verdict stream.
Guarantees: a task leaves `cohorts` in the same atomic step that stores its response (or its dead letter), so a crash
between the two cannot lose it, and a second worker that comes to the same end changes nothing. `cohorts` never exceeds
`bound` entries: a producer waits for room, nothing is dropped. Judging is at-least-once; a task whose submission was
repeated after a broken connection is answered twice: the reader drops the second by cohort id.
Waits for: `submit` for room, `take` for a task, `responses` for a response; each is woken by Redis, none polls.
Raises `redis.exceptions.RedisError` when Redis stays away for longer than the connection's retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from preceptor_client.contract import JudgeResponse, JudgeTask

GROUP = "judges"
_BLOCK_MS = 1_000
_BATCH = 256

# Appends only if there is room. KEYS: cohorts, room. ARGV: bound, task. Returns the entry's id, or, when the stream is
# full, the id to wait after on `room`: read inside the same atomic step, so that no wake-up falls in between.
_APPEND = """
if redis.call('XLEN', KEYS[1]) < tonumber(ARGV[1]) then
  return {1, redis.call('XADD', KEYS[1], '*', 'task', ARGV[2])}
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {0, last[1] and last[1][1] or '0-0'}
"""

# Replaces a task by its outcome, once. KEYS: cohorts, target, room. ARGV: group, entry id, then fields and values.
_RETIRE = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'freed', ARGV[2])
return 1
"""


def connect(url: str, *, patience_s: float = 30.0) -> Redis:
    """A connection to Redis as the queue needs it: decoded to str, and riding through an outage of about `patience_s`.

    The socket's time-out lies above every blocking read of the queue, yet notices a peer that went without a word.
    """
    pause_s = 1.0
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=_BLOCK_MS / 1000 + 10,
        socket_connect_timeout=5,
        retry=Retry(ExponentialBackoff(cap=pause_s, base=0.05), max(1, round(patience_s / pause_s))),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


@dataclass(frozen=True)
class Delivery:
    """A task in a worker's hands; it stays in the stream until it is settled or buried."""

    entry_id: str
    task: JudgeTask


@dataclass(frozen=True)
class StoredResponse:
    """A response in the run's verdict stream; it stays there until it is forgotten."""

    entry_id: str
    response: JudgeResponse


@dataclass(frozen=True)
class QueueStatus:
    """Entries `waiting` for a worker, `in_flight` at one, `dead`, and `verdicts` not yet forgotten, by run."""

    waiting: int
    in_flight: int
    dead: int
    verdicts: dict[str, int]


class CohortQueue:
    """One view of the queue, for a producer, a worker or an operator. `redis` must decode responses to str."""

    def __init__(self, redis: Redis, *, bound: int = 1024, namespace: str = "preceptor") -> None:
        if bound < 1:
            raise ValueError(f"bound must be at least 1, not {bound}")
        self._redis = redis
        self._bound = bound
        self._cohorts = f"{namespace}:cohorts"
        self._dead = f"{namespace}:dead"
        self._room = f"{namespace}:room"
        self._verdict_prefix = f"{namespace}:verdicts:"
        self._append = redis.register_script(_APPEND)
        self._replace = redis.register_script(_RETIRE)

    async def submit(self, task: JudgeTask) -> None:
        """Append `task`, waiting while the stream is full."""
        payload = task.model_dump_json()
        while True:
            appended, marker = await self._append(keys=[self._cohorts, self._room], args=[self._bound, payload])
            if appended:
                return
            await blocking_read(self._redis.xread({self._room: marker}, count=1, block=_BLOCK_MS))

    async def open_group(self) -> None:
        """Create the workers' consumer group if it is not there yet."""
        try:
            await self._redis.xgroup_create(self._cohorts, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def take(self, consumer: str, *, count: int = 1, lease_ms: int = 60_000) -> list[Delivery]:
        """Up to `count` tasks: first those another worker has held for longer than its lease, then new ones.

        Returns an empty list after a second without any, or at once if it had to create the group (in a new Redis).
        A task that cannot be decoded is buried, not returned.
        """
        try:
            claimed: Any = await self._redis.xautoclaim(self._cohorts, GROUP, consumer, lease_ms, count=count)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self.open_group()
            return []
        # Redis 6.2 answers (None, None) for an entry that was deleted by hand while a worker held it.
        entries = [(entry_id, fields) for entry_id, fields in claimed[1] if entry_id is not None]
        if not entries:
            entries = await blocking_read(
                self._redis.xreadgroup(GROUP, consumer, {self._cohorts: ">"}, count=count, block=_BLOCK_MS)
            )
        deliveries = []
        for entry_id, fields in entries:
            try:
                task = JudgeTask.model_validate_json(fields.get("task", ""))
            except ValidationError as error:
                await self._retire(entry_id, self._dead, {**fields, "reason": f"cannot be decoded: {error}"})
            else:
                deliveries.append(Delivery(entry_id, task))
        return deliveries

    async def settle(self, delivery: Delivery, response: JudgeResponse) -> bool:
        """Store the response and remove the task, in one atomic step. False if another worker has already done so."""
        stream = self._verdict_prefix + delivery.task.run
        return await self._retire(delivery.entry_id, stream, {"response": response.model_dump_json()})

    async def bury(self, delivery: Delivery, reason: str) -> bool:
        """Move the task to the dead-letter stream with the reason. False if another worker has already retired it."""
        task = delivery.task.model_dump_json()
        return await self._retire(delivery.entry_id, self._dead, {"task": task, "reason": reason})

    async def _retire(self, entry_id: str, target: str, fields: dict[str, str]) -> bool:
        flat = [text for pair in fields.items() for text in pair]
        retired = await self._replace(keys=[self._cohorts, target, self._room], args=[GROUP, entry_id, *flat])
        return bool(retired)

    async def responses(self, run: str) -> AsyncIterator[StoredResponse]:
        """Every response of `run` not yet forgotten, oldest first, then each new one as it comes. Never ends.

        A response that cannot be decoded (a worker of another version wrote it) goes to the dead letters.
        """
        stream, last = self._verdict_prefix + run, "0-0"
        while True:
            for entry_id, fields in await blocking_read(
                self._redis.xread({stream: last}, count=_BATCH, block=_BLOCK_MS)
            ):
                last = entry_id
                try:
                    response = JudgeResponse.model_validate_json(fields.get("response", ""))
                except ValidationError as error:
                    await self._bury_response(stream, entry_id, {**fields, "reason": f"cannot be decoded: {error}"})
                else:
                    yield StoredResponse(entry_id, response)

    async def _bury_response(self, stream: str, entry_id: str, fields: dict[Any, Any]) -> None:
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.xadd(self._dead, fields)
            transaction.xdel(stream, entry_id)
            await transaction.execute()

    async def forget(self, run: str, entry_ids: Sequence[str]) -> None:
        """Remove responses whose effect is durable."""
        if entry_ids:
            await self._redis.xdel(self._verdict_prefix + run, *entry_ids)

    async def status(self) -> QueueStatus:
        """How full every stream is."""
        length = await self._redis.xlen(self._cohorts)
        groups: Any = await self._redis.xinfo_groups(self._cohorts) if length else []
        in_flight = sum(group["pending"] for group in groups if group["name"] == GROUP)
        verdicts = {
            key.removeprefix(self._verdict_prefix): await self._redis.xlen(key)
            async for key in self._redis.scan_iter(match=self._verdict_prefix + "*", _type="stream")
        }
        return QueueStatus(max(0, length - in_flight), in_flight, await self._redis.xlen(self._dead), verdicts)


async def blocking_read(read: Awaitable[Any]) -> list[tuple[str, dict[str, str]]]:
    """The entries of a blocking read of one stream; none if the socket's time ran out first.

    redis-py answers `[[stream, entries]]` under RESP2 and `{stream: [entries]}` under RESP3.
    """
    try:
        answer = await read
    except RedisTimeoutError:
        answer = None
    # `asyncio.wait_for` of Python 3.11, which redis-py sends with, can lose a cancellation: then it is still due here.
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError
    if not answer:
        return []
    entries: list[tuple[str, dict[str, str]]] = (
        next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    )
    return entries
