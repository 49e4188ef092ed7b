"""The queue between trainer and judge workers, on Redis Streams. Needs the extra `preceptor[queue]`.

    submit -> stream `cohorts` -> take ... settle -> stream `verdicts:<run>` -> responses -> forget
                                    \\-> bury -> stream `dead`

In: `JudgeTask`s from the trainer. Out: one `JudgeResponse` per cohort on the run's own verdict stream.
Guarantees: at-least-once delivery; a task leaves `cohorts` in the transaction that stores its response (or its dead
letter), so a crash between the two cannot lose it. `cohorts` never exceeds `bound` entries: a producer waits for room,
nothing is dropped. A response may come twice (a worker that was slow, not dead): the reader drops it by cohort id.
Waits for: `submit` for room, `take` for a task, `responses` for a response; each is woken by Redis, none polls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from preceptor_client.contract import JudgeResponse, JudgeTask

GROUP = "judges"
_BLOCK_MS = 1_000

# Appends only if there is room. KEYS: cohorts, room. ARGV: bound, task. Returns the entry's id, or, when the stream is
# full, the id to wait after on `room`: read inside the same atomic step, so that no wake-up falls in between.
_APPEND = """
if redis.call('XLEN', KEYS[1]) < tonumber(ARGV[1]) then
  return {1, redis.call('XADD', KEYS[1], '*', 'task', ARGV[2])}
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {0, last[1] and last[1][1] or '0-0'}
"""


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
    """Entries `waiting` for a worker, `in_flight` at one, `dead`, and `verdicts` not yet consumed, by run."""

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

    async def submit(self, task: JudgeTask) -> None:
        """Append `task`, waiting while the stream is full."""
        payload = task.model_dump_json()
        while True:
            appended, marker = await self._redis.eval(  # type: ignore[misc]
                _APPEND, 2, self._cohorts, self._room, str(self._bound), payload
            )
            if appended:
                return
            await self._redis.xread({self._room: marker}, count=1, block=_BLOCK_MS)

    async def open_group(self) -> None:
        """Create the workers' consumer group if it is not there yet."""
        try:
            await self._redis.xgroup_create(self._cohorts, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def take(self, consumer: str, *, count: int = 1, lease_ms: int = 60_000) -> list[Delivery]:
        """Up to `count` tasks: first those another worker has held for longer than its lease, then new ones.

        Returns an empty list after about a second without any. A task that cannot be decoded is buried, not returned.
        """
        claimed = await self._redis.xautoclaim(self._cohorts, GROUP, consumer, min_idle_time=lease_ms, count=count)
        entries: list[tuple[str, dict[str, str]]] = claimed[1]
        if not entries:
            fresh = await self._redis.xreadgroup(GROUP, consumer, {self._cohorts: ">"}, count=count, block=_BLOCK_MS)
            entries = fresh[0][1] if fresh else []
        deliveries = []
        for entry_id, fields in entries:
            try:
                task = JudgeTask.model_validate_json(fields.get("task", ""))
            except ValidationError as error:
                await self._retire(entry_id, self._dead, {**fields, "reason": f"cannot be decoded: {error}"})
            else:
                deliveries.append(Delivery(entry_id, task))
        return deliveries

    async def settle(self, delivery: Delivery, response: JudgeResponse) -> None:
        """Store the response and remove the task, in one transaction."""
        await self._retire(
            delivery.entry_id,
            self._verdict_prefix + delivery.task.run,
            {"response": response.model_dump_json()},
        )

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Move the task to the dead-letter stream with the reason."""
        await self._retire(delivery.entry_id, self._dead, {"task": delivery.task.model_dump_json(), "reason": reason})

    async def _retire(self, entry_id: str, target: str, fields: dict[str, Any]) -> None:
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.xadd(target, fields)
            transaction.xack(self._cohorts, GROUP, entry_id)
            transaction.xdel(self._cohorts, entry_id)
            transaction.xadd(self._room, {"freed": entry_id}, maxlen=1, approximate=False)
            await transaction.execute()

    async def responses(self, run: str) -> AsyncIterator[StoredResponse]:
        """Every response of `run` not yet forgotten, oldest first, then each new one as it comes. Never ends."""
        stream, last = self._verdict_prefix + run, "0-0"
        while True:
            answer = await self._redis.xread({stream: last}, count=256, block=_BLOCK_MS)
            for entry_id, fields in answer[0][1] if answer else []:
                last = entry_id
                yield StoredResponse(entry_id, JudgeResponse.model_validate_json(fields["response"]))

    async def forget(self, run: str, entry_ids: Sequence[str]) -> None:
        """Remove responses whose effect is durable."""
        if entry_ids:
            await self._redis.xdel(self._verdict_prefix + run, *entry_ids)

    async def status(self) -> QueueStatus:
        """How full every stream is."""
        length = await self._redis.xlen(self._cohorts)
        in_flight = 0
        if length:
            groups = await self._redis.xinfo_groups(self._cohorts)
            in_flight = sum(group["pending"] for group in groups if group["name"] == GROUP)
        verdicts = {
            key.removeprefix(self._verdict_prefix): await self._redis.xlen(key)
            async for key in self._redis.scan_iter(match=self._verdict_prefix + "*", _type="stream")
        }
        return QueueStatus(length - in_flight, in_flight, await self._redis.xlen(self._dead), verdicts)
