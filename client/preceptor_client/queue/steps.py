"""The names of the queue's keys, and its atomic steps as calls that ride through trouble.

In: a connection, a namespace, a `Ride`. Raises what the ride raises.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from preceptor_client.queue.riding import Ride

GROUP = "judges"
"""The workers' consumer group."""


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
        self._redis = redis
        self._keys = [keys.cohorts, keys.dead, keys.room, keys.errors, keys.runs, keys.letters, keys.workers]
        self._prefix = keys.prefix
        self._ride = ride
        self._registered: dict[str, Any] = {}

    async def __call__(self, script: str, *arguments: str | int) -> Any:
        """The answer of one step."""
        step = self._registered.get(script)
        if step is None:
            step = self._registered[script] = self._redis.register_script(script)
        return await self._ride.through(lambda: step(keys=self._keys, args=[self._prefix, *arguments]))
