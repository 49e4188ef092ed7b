"""How much a caller may do: requests and tokens a minute, requests at once.

Rates are buckets that leak evenly. A bucket's state is the one moment at which it will be empty again: a request moves
it on by what it costs, as seconds of the key's rate. A bucket holds a minute's worth, so a key may use up its minute at
once and then goes on at its rate. What a request costs in tokens is known only afterwards: it is let in while there is
any room, then charged in full, even beyond the bucket; who is in debt waits until it has leaked away.

In: a `Caller`; what its requests cost. Out: a place for the length of a request, or `OverLimitError` with the seconds
to wait. Guarantees: refusals cost nothing; several processes that share a Redis share the rates. If it is away, each
process goes on by itself with the same rates, and looks for it again every few seconds: that the judge answers is worth
more than that nobody gets a little too much. Waits for: Redis, at most half a second.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from preceptor_services.keys import Caller
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority

log = logging.getLogger(__name__)

_MINUTE_S = 60.0
_ROUNDING_S = 1e-3
"""Sums of fractions miss a whole by less than this."""
_AWAY_S = 5.0
_SHARES = {Priority.INTERACTIVE: 1.0, Priority.BULK: 0.75, Priority.TRAINING: 0.5}
"""How much of `max_waiting` a priority may fill: a flood from below never shuts out who waits for an answer."""


class OverLimitError(Exception):
    """The caller is to come back later. `shared` says that it is not its own doing: the service is full."""

    def __init__(self, reason: str, text: str, wait_s: float, *, shared: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.wait_s = wait_s
        self.shared = shared


@dataclass(frozen=True)
class Draw:
    """Seconds to put into a bucket, if it has `room_s` left; without `room_s`, whatever is left."""

    bucket: str
    seconds: float
    room_s: float | None = None


class Buckets(Protocol):
    """Keeps buckets."""

    async def draw(self, draws: Sequence[Draw]) -> list[float]:
        """How long each has to wait. Either none has, or nothing was put anywhere."""


class LocalBuckets:
    """Buckets of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._empty_at: dict[str, float] = {}
        """By bucket, of which there are two a key."""

    async def draw(self, draws: Sequence[Draw]) -> list[float]:
        now = self._clock()
        levels = [max(0.0, self._empty_at.get(draw.bucket, 0.0) - now) for draw in draws]
        waits = [wait_s(level, draw.room_s) for level, draw in zip(levels, draws, strict=True)]
        if not any(waits):
            for level, draw in zip(levels, draws, strict=True):
                self._empty_at[draw.bucket] = now + level + draw.seconds
        return waits


def wait_s(level_s: float, room_s: float | None) -> float:
    """Seconds until a bucket that is filled to `level_s` has room."""
    over = 0.0 if room_s is None else level_s + room_s - _MINUTE_S
    return over if over > _ROUNDING_S else 0.0


# The same as LocalBuckets.draw, on the clock of Redis. KEYS: buckets. ARGV: for each, its seconds and its room, which
# is empty for a draw that needs none; then the minute and the rounding. Returns the waits as text: Lua's numbers would
# be cut to whole ones.
_DRAW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local minute, rounding = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
local levels, waits, waiting = {}, {}, false
for i, key in ipairs(KEYS) do
  levels[i] = math.max(0, tonumber(redis.call('GET', key) or '0') - now)
  local room = tonumber(ARGV[2 * i])
  local over = room and levels[i] + room - minute or 0
  waiting = waiting or over > rounding
  waits[i] = over > rounding and string.format('%.6f', over) or '0'
end
if not waiting then
  for i, key in ipairs(KEYS) do
    local level = levels[i] + tonumber(ARGV[2 * i - 1])
    if level > 0 then
      redis.call('SET', key, string.format('%.6f', now + level), 'PX', math.ceil(level * 1000))
    end
  end
end
return waits
"""


class SharedBuckets:
    """Buckets in Redis; `LocalBuckets` while it is away."""

    def __init__(self, redis: Redis, namespace: str, metrics: Metrics) -> None:
        self._script = redis.register_script(_DRAW)
        self._namespace = namespace
        self._metrics = metrics
        self._local = LocalBuckets()
        self._away_until = 0.0

    async def draw(self, draws: Sequence[Draw]) -> list[float]:
        if time.monotonic() < self._away_until:
            return await self._local.draw(draws)
        try:
            waits = await self._script(
                keys=[f"{{{self._namespace}:limits}}:{draw.bucket}" for draw in draws],
                args=[*(part for draw in draws for part in _arguments(draw)), _MINUTE_S, _ROUNDING_S],
            )
        except (RedisError, OSError) as error:
            self._metrics.limit_errors.inc()
            log.warning("rate limits: Redis is away (%s); until it is back, every process has its own", error)
            self._away_until = time.monotonic() + _AWAY_S
            return await self._local.draw(draws)
        return [float(wait) for wait in waits]


def _arguments(draw: Draw) -> tuple[str, str]:
    return repr(draw.seconds), "" if draw.room_s is None else repr(draw.room_s)


class Limits:
    """The limits of all callers of one process. `max_waiting` is a bound on requests in work, whoever sent them."""

    def __init__(self, buckets: Buckets, max_waiting: int) -> None:
        self._buckets = buckets
        self._max_waiting = max_waiting
        self._in_work = 0
        self._in_work_of: dict[str, int] = {}

    @asynccontextmanager
    async def place(self, caller: Caller) -> AsyncIterator[None]:
        """A place for one request that makes work. Raises OverLimitError."""
        if self._in_work >= max(1, int(self._max_waiting * _SHARES[caller.priority])):
            raise OverLimitError("waiting", "the service has as much work as it takes on", 1.0, shared=True)
        own = self._in_work_of.get(caller.name, 0)
        if caller.concurrency is not None and own >= caller.concurrency:
            raise OverLimitError("concurrency", f"this key may have {caller.concurrency} requests in work at once", 1.0)
        self._in_work += 1
        self._in_work_of[caller.name] = own + 1
        try:
            await self.count(caller, makes_work=True)
            yield
        finally:
            self._in_work -= 1
            self._in_work_of[caller.name] -= 1

    async def count(self, caller: Caller, *, makes_work: bool) -> None:
        """Count one request. Raises OverLimitError if the caller's minute is used up."""
        draws: list[Draw] = []
        if caller.requests_per_minute is not None:
            seconds = _MINUTE_S / caller.requests_per_minute
            draws.append(Draw(f"{caller.name}:requests", seconds, room_s=seconds))
        if caller.tokens_per_minute is not None and makes_work:
            draws.append(Draw(f"{caller.name}:tokens", 0.0, room_s=_MINUTE_S / caller.tokens_per_minute))
        if not draws:
            return
        waits = await self._buckets.draw(draws)
        longest = max(range(len(waits)), key=waits.__getitem__)
        if waits[longest]:
            what = draws[longest].bucket.rpartition(":")[2]
            bound = caller.requests_per_minute if what == "requests" else caller.tokens_per_minute
            raise OverLimitError(what, f"this key's limit is {bound:,} {what} a minute", waits[longest])

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Count what a request cost."""
        if caller.tokens_per_minute is not None and tokens:
            await self._buckets.draw([Draw(f"{caller.name}:tokens", tokens * _MINUTE_S / caller.tokens_per_minute)])


def retry_after_s(wait: float) -> int:
    """`Retry-After`: whole seconds, never too early."""
    return max(1, math.ceil(wait))
