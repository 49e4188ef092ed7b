"""A producer as a process of its own, and rounds of work asked of it over pipes. Standard library alone: the peers'
processes, which have an environment of their own, use it too.

    Producer(command) -- "2000\\n" --> serve(round) --> {"seconds": ..., "cpu_s": ...}

In: how many cohorts. Out: the seconds from the first that was handed over to the last whose answer was read, and the
processor time of the producer. Raises RuntimeError if the producer, or the worker it waits for, ended instead.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

AHEAD = 1024
"""Cohorts that may be open at once: the queue's own bound."""
AT_ONCE = 64
"""Cohorts in one call, or one pipeline."""


@dataclass(frozen=True)
class Round:
    """One round as the producer saw it."""

    seconds: float
    cpu_s: float


class Producer:
    """The process that `command` starts, which calls `serve`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def round(self, count: int, worker_ended: Callable[[], bool]) -> Round:
        """`count` cohorts there and back."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(f"{count}\n")
        pipe_in.flush()
        while not select.select([pipe_out], [], [], 1.0)[0]:
            if worker_ended():
                raise RuntimeError("the worker ended")
        if not (line := pipe_out.readline()):
            raise RuntimeError(f"a producer ended: {self._log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        return Round(**json.loads(line))


def serve(round_of: Callable[[int], object], prepare: Callable[[int], object] = lambda count: None) -> None:
    """Do what is asked for on standard input, until it ends. What `prepare` does is not counted."""
    for line in sys.stdin:
        prepare(count := int(line))
        began, cpu_began = time.perf_counter(), time.process_time()
        round_of(count)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}), flush=True)
