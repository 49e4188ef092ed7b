"""What becomes of a cohort that lost its engine: it rests, and is judged apart when that happens again.

A cohort that ends the engine whenever it is judged takes all that is in hand with it, and each of them loses an
attempt. From its third attempt on a cohort is therefore judged while no other such is, in any process that shares the
Redis: the one at fault reaches its delivery bound, its neighbours lose two attempts to it at most.

In: the number of the attempt. Out: a turn. Guarantees: a process that dies with the turn loses it after its lease.
Waits for: the turn, and a Redis that is away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from preceptor_client.queue import QueueUnavailable, Ride

_SUSPECT_FROM = 3
"""One outage is nobody's fault, and two can happen to anyone."""
_TRY_EVERY_S = 0.1
_TRY_FOR_S = 1.0
_LONGEST_REST_S = 16.0


def rest_s(attempt: int) -> float:
    """How long a cohort keeps its place after an attempt in which it lost its engine: one that is ready all the same
    (it had too many requests, say) is asked less for a while."""
    return min(2.0 ** (attempt - 1), _LONGEST_REST_S) * random.uniform(0.5, 1)


class Quarantine:
    """One turn at a time over all processes of a namespace."""

    def __init__(self, redis: Redis, *, namespace: str, lease_s: float) -> None:
        self._redis = redis
        self._name = f"{namespace}:quarantine"
        self._lease_s = lease_s
        self._here = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, attempt: int) -> AsyncIterator[None]:
        """For the length of the `with` block; at once for what is not suspected."""
        if attempt < _SUSPECT_FROM:
            yield
            return
        async with self._here:  # so that only one of this process asks Redis again and again
            lock = self._redis.lock(self._name, timeout=self._lease_s, sleep=_TRY_EVERY_S)
            while not await Ride(self._redis).through(lambda: lock.acquire(blocking_timeout=_TRY_FOR_S)):
                pass
            keeping = asyncio.create_task(self._keep(lock))
            try:
                yield
            finally:
                keeping.cancel()
                with suppress(LockError, QueueUnavailable):  # then its lease runs out
                    await Ride(self._redis, patience_s=0).through(lock.release)

    async def _keep(self, lock: Lock) -> None:
        with suppress(LockError):  # another has it: Redis was away for longer than the lease
            while True:
                await asyncio.sleep(self._lease_s / 3)
                await Ride(self._redis).through(lambda: lock.extend(self._lease_s, replace_ttl=True))
