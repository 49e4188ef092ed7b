"""Which key is whose.

In: the keys file (see `preceptor_client.keys`). Out: the `Caller` behind a key.
Guarantees: the file is looked at again at most once a second, when a key is presented, so that a key that was added
or removed counts a second later without a restart; a file that cannot be used any more changes nothing but the log.
A key is compared with every entry in constant time: how long a wrong one takes tells nothing. Raises `KeysError` if
the file cannot be used at the start.
"""

from __future__ import annotations

import hmac
import logging
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preceptor_client.keys import KeyEntry, KeysError, key_hash, read_keys
from preceptor_services.priority import Priority

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Caller:
    """Who sent a request. None is no limit."""

    name: str
    priority: Priority
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


ANONYMOUS = Caller("anonymous", Priority.INTERACTIVE)
"""Everybody, at a service without keys."""


class KeyRing:
    """The keys of a file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._mark = self._look()
        self._looked_at = clock()
        self._callers = self._read()
        if self._mark is not None and self._mark[0] & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("the keys file %s can be read by others than its owner: chmod 600 it", path)

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None if it is nobody's."""
        self._refresh()
        presented, found = key_hash(key), None
        for known, caller in self._callers.items():
            if hmac.compare_digest(presented, known):
                found = caller
        return found

    def named(self, name: str) -> Caller | None:
        """The caller of that name, for work that outlives its request."""
        self._refresh()
        return next((caller for caller in self._callers.values() if caller.name == name), None)

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        mark = self._look()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._callers = self._read()
        except KeysError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("keys read again: %d", len(self._callers))

    def _read(self) -> dict[str, Caller]:
        return {entry.hash: _caller(entry) for entry in read_keys(self._path).keys}

    def _look(self) -> tuple[int, ...] | None:
        """What changes when the file does; None if it is not there."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


def _caller(entry: KeyEntry) -> Caller:
    return Caller(
        name=entry.name,
        priority=Priority[entry.priority.upper()],
        requests_per_minute=entry.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute,
        concurrency=entry.concurrency,
    )
