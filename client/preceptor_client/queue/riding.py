"""Riding through a Redis that is away, full or read-only: try again, ever more slowly, and say so each time.

In: a call, and how long to be patient. Out: the call's result. A call may have had its effect although its answer was
lost, so what is ridden must bear being repeated.
Guarantees: no trouble goes unsaid (`on_trouble`), and what waiting cannot mend is not waited for.
Waits for: at most `patience_s` from a call's first failure, then for one more answer.
Raises `QueueUnavailable` when patience is over, `QueueMisfit` when waiting does not help.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal, TypeVar

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

TroubleKind = Literal["away", "full", "read_only"]
ResultT = TypeVar("ResultT")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_ASK_AGAIN_S = 0.05

_KINDS: dict[str, TroubleKind] = {
    "OOM": "full",
    "MISCONF": "full",  # the disk does not take the append-only file
    "NOREPLICAS": "full",  # too few replicas to keep what is written
    "READONLY": "read_only",
    "UNBLOCKED": "read_only",  # a master that became a replica lets its waiting clients go
    "LOADING": "away",
    "MASTERDOWN": "away",
    "CLUSTERDOWN": "away",
    "TRYAGAIN": "away",
    "BUSY": "away",
}
_MISFITS = {
    "NOAUTH": "it asks for a password: write it into the URL, redis://:<password>@host",
    "WRONGPASS": "user name or password is wrong: correct the URL",
    "DENIED": "in protected mode it serves its own machine alone: give it a password, and write it into the URL",
    "NOPERM": "this user may not do what the queue needs: give it all commands on the queue's keys",
    "WRONGTYPE": "a key of the queue holds something else: choose another namespace or database",
    "CROSSSLOT": "it is a cluster: use one master, with replicas and Sentinels if it must not fail",
    "MOVED": "it is a cluster: use one master, with replicas and Sentinels if it must not fail",
}
_TOLD = 160
"""Characters of Redis' own words in a message: in protected mode it has a page of advice."""
# Redis 6.2 wraps what goes wrong inside a script, so that the code is somewhere in the text.
_CODE = re.compile(r"\b(" + "|".join([*_KINDS, *_MISFITS]) + r")\b")


@dataclass(frozen=True)
class Trouble:
    """What keeps Redis from serving just now. It passes, so it is waited for.

    `away`: no connection, no answer in time, still loading. `full`: out of memory or disk, or too few replicas.
    `read_only`: a replica; its fail-over is under way, or the URL names the wrong server.
    """

    kind: TroubleKind
    detail: str

    def __str__(self) -> str:
        return f"Redis is {self.kind.replace('_', '-')}: {self.detail}"


class QueueUnavailable(RuntimeError):
    """Redis could not serve for longer than patience lasts."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


class QueueMisfit(RuntimeError):
    """This Redis cannot serve, and waiting does not help. The text says what to change."""


def trouble_of(error: Exception) -> Trouble | None:
    """What an error of redis-py means; None if it is none that passes. Raises `QueueMisfit` for what never does."""
    text = str(error) or type(error).__name__
    name = getattr(error, "status_code", None)
    if name not in _KINDS and name not in _MISFITS:
        name = next(iter(_CODE.findall(text)), "")
    if isinstance(error, AuthenticationError | AuthorizationError):
        name = name if name in _MISFITS else "WRONGPASS"
    if name in _MISFITS:
        raise QueueMisfit(f"{_MISFITS[name]} ({shorten(text, _TOLD, placeholder=' ...')})") from error
    if isinstance(error, InvalidResponse):
        raise QueueMisfit(f"what answers there is no Redis: correct the URL ({text})") from error
    if isinstance(error, ResponseError) and re.search(r"unknown (sub)?command|DB index is out of range", text):
        raise QueueMisfit(f"the queue needs Redis >= 6.2, all its commands, and a database that is there ({text})")
    if distrust := _distrust(error):
        raise QueueMisfit(f"its certificate is not trusted: add ssl_ca_certs=<file> to the URL ({distrust})") from error
    if name in _KINDS:
        return Trouble(_KINDS[name], text)
    if "previous master is now a slave" in text:  # redis-py's words for READONLY behind Sentinels
        return Trouble("read_only", text)
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return Trouble("away", text)
    return None


def _distrust(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


class Ride:
    """Rides calls to `redis` through trouble. `patience_s` None is for ever, 0 tries once.

    `on_trouble` is called with every failed try's `Trouble`, and with None when the call that had it has succeeded.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        patience_s: float | None = None,
        on_trouble: Callable[[Trouble | None], None] = lambda trouble: None,
    ) -> None:
        self._redis = redis
        self._patience_s = patience_s
        self._on_trouble = on_trouble
        self.breaks = 0
        """Failed tries after which Redis may hold less than it did: it was away, or another has taken its place."""

    async def through(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """The result of `call`, which is repeated as long as it takes."""
        pause_s, failed_at = _FIRST_PAUSE_S, None
        while True:
            cancellations = _cancellations()
            try:
                result = await call()
            except (RedisError, OSError) as error:
                _still_wanted(cancellations)
                if (trouble := trouble_of(error)) is None:
                    raise
            else:
                _still_wanted(cancellations)
                if failed_at is not None:
                    self._on_trouble(None)
                return result
            self._on_trouble(trouble)
            failed_at = failed_at or time.monotonic()
            if self._patience_s is not None and time.monotonic() - failed_at >= self._patience_s:
                raise QueueUnavailable(trouble)
            if trouble.kind != "full":
                self.breaks += 1
            if trouble.kind == "read_only":
                # So that the next try asks anew who is the master: its name, or its Sentinels.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def blocking_read(read: Awaitable[Any]) -> list[tuple[Any, dict[Any, Any]]]:
    """The entries of a blocking read of one stream, in str or bytes; none if the socket's time ran out first.

    redis-py answers `[[stream, entries]]` under RESP2 and `{stream: [entries]}` under RESP3.
    """
    cancellations = _cancellations()
    try:
        answer = await read
    except RedisTimeoutError:
        answer = None
    _still_wanted(cancellations)
    if not answer:
        return []
    entries: list[tuple[Any, dict[Any, Any]]] = (
        next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    )
    return entries


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task`, whatever it comes to, and wait until it has ended. Asks again, in case a cancellation is lost."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=_ASK_AGAIN_S)
    if not task.cancelled():
        task.exception()


def _still_wanted(cancellations: int) -> None:
    """Raises CancelledError if there were more cancellations than so many. One can be lost in `asyncio.wait_for` of
    Python 3.11, which redis-py sends with, and is still due.
    """
    if _cancellations() > cancellations:
        raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
