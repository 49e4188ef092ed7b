"""Several iterators read at the same time, in an order that does not depend on which is faster.

    a: a0 a1 a2            thread a -> [ a1 a2 ]
    b: b0                  thread b -> [ ]          -> a0 b0 c0 a1 c1 a2
    c: c0 c1               thread c -> [ c1 ]

In: iterators. Out: their items in turn; one that is through is left out from then on. Guarantees: the order is that of
reading them in turn by oneself; an error is raised where its item would have been; closing the generator, or an error,
ends the threads. Waits for the iterator whose turn it is; each thread waits once it is `_AHEAD` items ahead.

Threads, and not processes: what takes long is waiting for a network and decompressing, and both let other threads run.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_AHEAD = 256
_PATIENCE_S = 0.1
"""How soon a thread with a full queue notices that nobody wants its items any more."""


def in_turn(iterators: Sequence[Iterator[T]]) -> Generator[T]:
    """The items of all, one of each in turn. A single one is read without a thread."""
    if len(iterators) == 1:
        yield from iterators[0]
        return
    readers = [_Reader(iterator) for iterator in iterators]
    try:
        left = readers
        while left:
            ended = []
            for reader in left:
                try:
                    yield next(reader)
                except StopIteration:
                    ended.append(reader)
            left = [reader for reader in left if reader not in ended]
    finally:
        for reader in readers:
            reader.close()


class _Reader(Generic[T]):
    """An iterator, read ahead in a thread."""

    def __init__(self, iterator: Iterator[T]) -> None:
        self._iterator = iterator
        self._read: queue.Queue[tuple[T] | BaseException] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        got = self._read.get()
        if isinstance(got, BaseException):
            raise got
        return got[0]

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        try:
            for item in self._iterator:
                if not self._give((item,)):
                    return
            self._give(StopIteration())
        except Exception as error:  # noqa: BLE001  is raised where the items are read
            self._give(error)

    def _give(self, item: tuple[T] | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._read.put(item, timeout=_PATIENCE_S)
            except queue.Full:
                continue
            return True
        return False
