"""redis-py alone at both ends, each a process: `python -m benchmarks.queue_parts.redis_side ROLE URL FOLDER`.

The least that brings the same bytes there and back by streams: pipelined XADD, XREADGROUP with COUNT, then the
response's XADD with XACK and XDEL of many in one pipeline; XREAD and XDEL of many on the way back. No JSON, no bound
but the producer's own count, no ids, nothing once only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from benchmarks.queue_parts.payload import load
from benchmarks.queue_parts.rounds import AHEAD, AT_ONCE, serve

TASKS, RESPONSES, GROUP = "bare:tasks", "bare:responses", "bare"


def produce(redis: Any, task: bytes, count: int) -> None:
    """Add `count` tasks, at most `AHEAD` unanswered, and read as many responses."""
    sent = answered = 0
    while answered < count:
        room = min(AT_ONCE, count - sent, AHEAD - (sent - answered))
        if room > 0:
            with redis.pipeline(transaction=False) as pipeline:
                for _ in range(room):
                    pipeline.xadd(TASKS, {"task": task})
                sent += len(pipeline.execute())
        # From the start of the stream: what was read has been removed.
        if entries := read(redis.xread({RESPONSES: "0-0"}, count=256, block=None if room > 0 else 1000)):
            redis.xdel(RESPONSES, *(entry_id for entry_id, _ in entries))
            answered += len(entries)


def answer(redis: Any, response: bytes) -> None:
    """Answer whatever comes, for ever."""
    try:
        redis.xgroup_create(TASKS, GROUP, "0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    while True:
        entries = read(redis.xreadgroup(GROUP, "taker", {TASKS: ">"}, count=AT_ONCE, block=1000))
        if entries:
            ids = [entry_id for entry_id, _ in entries]
            with redis.pipeline(transaction=False) as pipeline:
                for _ in ids:
                    pipeline.xadd(RESPONSES, {"response": response})
                pipeline.xack(TASKS, GROUP, *ids)
                pipeline.xdel(TASKS, *ids)
                pipeline.execute()


def read(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream that was read."""
    if not answer:
        return []
    entries: list[tuple[bytes, dict[bytes, bytes]]] = (
        next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    )
    return entries


def main(role: str, url: str, folder: Path) -> None:
    """Run one end."""
    task, response = load(folder)
    with Redis.from_url(url) as redis:
        if role == "producer":
            serve(lambda count: produce(redis, task, count))
        else:
            answer(redis, response)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
