"""The lines of a file that may be larger than memory, or of a pipe that is still being written.

In: a stream of bytes. Out: `Line`s, numbered from 1, blank ones left out. Guarantees: holds one line at most, and
of one that is longer than any request may be only its number. Waits for: a pipe's writer; other tasks go on meanwhile.
Raises `OSError`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_LINE_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A line without its end, which is `end` bytes into the file. `text` is None if it is too long to be read."""

    number: int
    text: bytes | None
    end: int


class Splitter:
    """Chunks of bytes in, lines out. Pure."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._end = 0
        self._number = 0

    def split(self, chunk: bytes) -> Iterator[Line]:
        """The lines that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            self._add(end)
            self._size += 1
            yield from self._finish()
        self._add(rest)

    def end(self) -> Iterator[Line]:
        """The last line, if nothing ended it."""
        if self._size:
            yield from self._finish()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_bytes:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _finish(self) -> Iterator[Line]:
        self._number += 1
        self._end += self._size
        text = None
        if self._size <= self._max_bytes + 1:
            text = b"".join(self._parts).strip(b"\r\n\t ")
            if self._number == 1:
                text = text.removeprefix(_BYTE_ORDER_MARK)
        line = Line(self._number, text, self._end)
        self._parts, self._size = [], 0
        if line.text != b"":
            yield line


async def read_lines(stream: BinaryIO) -> AsyncIterator[Line]:
    """The lines of `stream` that are not blank."""
    splitter = Splitter()
    async for chunk in _chunks(stream):
        for line in splitter.split(chunk):
            yield line
    for line in splitter.end():
        yield line


async def _chunks(stream: BinaryIO) -> AsyncIterator[bytes]:
    if not _may_block(stream):
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
        return
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            yield chunk
    finally:
        pipe.close()


def _may_block(stream: BinaryIO) -> bool:
    mode = os.fstat(stream.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()
