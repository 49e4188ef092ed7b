"""The names of the queue's keys, and its atomic steps as calls that ride through trouble.

In: a connection, a namespace, a `Ride`. Raises what the ride raises.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from redis.asyncio import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from preceptor_client.queue.riding import Ride

GROUP = "judges"
"""The workers' consumer group."""
IN_BYTES: dict[str, Any] = {NEVER_DECODE: True}
"""For a command whose answer holds tasks or responses: they are read as JSON, which takes bytes."""


class Keys:
    """Where the queue `namespace` lies in Redis."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}:"
        self.cohorts = f"{namespace}:cohorts"
        self.dead = f"{namespace}:dead"
        self.room = f"{namespace}:room"
        self.errors = f"{namespace}:errors"
        self.runs = f"{namespace}:runs"
        self.letters = f"{namespace}:letters"
        self.workers = f"{namespace}:workers"

    def known(self, run: str) -> str:
        """What became of the run's cohorts."""
        return f"{self.prefix}known:{run}"

    def verdicts(self, run: str) -> str:
        """The run's outcomes."""
        return f"{self.prefix}verdicts:{run}"


class Steps:
    """Runs the scripts of `preceptor_client.queue.scripts`."""

    def __init__(self, redis: Redis, keys: Keys, ride: Ride) -> None:
        self._execute: Any = redis.execute_command
        names = [keys.cohorts, keys.dead, keys.room, keys.errors, keys.runs, keys.letters, keys.workers]
        self._first = (len(names), *names, keys.prefix)
        self._ride = ride

    async def __call__(self, script: str, *arguments: str | bytes | int, in_bytes: bool = False) -> Any:
        """The answer of one step."""
        options = IN_BYTES if in_bytes else {}

        async def step() -> Any:
            try:
                return await self._execute("EVALSHA", _name(script), *self._first, *arguments, **options)
            except NoScriptError:  # a Redis that was not asked before
                return await self._execute("EVAL", script, *self._first, *arguments, **options)

        return await self._ride.through(step)


@cache
def _name(script: str) -> str:
    """What Redis knows the script by."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
