"""The output of bulk work: a JSONL file that is at every moment the answer to the first so many lines of the input.

In: answered lines, in order. Out: the file, one complete line for each. Guarantees: a line is there as a whole or, the
next time the file is opened, not at all, however the process before ended; two processes cannot write one file. What
is there already is told by `before`, so that a second call goes on after it. Raises `OutputError`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from preceptor_client.bulk.questions import Answered, Written

_TAIL_BYTES = 64 * 1024


class OutputError(Exception):
    """The file cannot be written, or is not what it should be; the text says what to do."""


class Output:
    """An output file that is being written: new, or with what an earlier call has written."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        with ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = stack.enter_context(path.open("ab+"))
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file.truncate(0 if overwrite else _complete_size(self._file))
                self._file.seek(0)
            except BlockingIOError:
                raise OutputError(f"another process is writing {path}: wait for it, or give another file") from None
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}") from None
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def before(self) -> Iterator[Written]:
        """The lines that were there, in their order. To be read to the end before anything is written."""
        for place, text in enumerate(self._file, start=1):
            try:
                line = json.loads(text)
                yield Written(int(line["line"]), str(line["input"]), "error" in line)
            except (ValueError, KeyError, TypeError):
                raise OutputError(
                    f"{self._path}:{place} was not written by this command: give another file, or --overwrite"
                ) from None

    def write(self, answered: Answered) -> None:
        """Append one line; it is the system's when this returns."""
        try:
            self._file.write(answered.as_line())
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None


def _complete_size(file: BinaryIO) -> int:
    """The size up to the end of the last complete line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _TAIL_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
