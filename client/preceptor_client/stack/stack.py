"""The stack: parts that live and die together.

    with Stack() as stack:
        redis = stack.start(redis_part(folder))
        stack.wait()            # until the first part dies (PartFailed) or Ctrl-C

Guarantees: on leaving the block, for whatever reason (an error, Ctrl-C, SIGTERM, SIGHUP), every part is stopped in
reverse order of its start and nothing is left behind. Waits for: only what it is told to; `wait` is woken by a thread
that waits on the part's pid.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from preceptor_client.stack.process import Part, Process


class Stack:
    """A context manager that owns the parts started in it. Start parts from the thread that entered it."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._ended: list[Process] = []
        self._stopping: list[Process] = []
        self._change = threading.Condition()
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, _leave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        main = threading.current_thread() is threading.main_thread()
        if main:  # a second Ctrl-C must not leave half of the stack behind; stopping is bounded anyway
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                previous = signal.signal(number, signal.SIG_IGN)
                self._handlers.setdefault(number, previous)
        try:
            self.stop()
        finally:
            if main:
                for number, handler in self._handlers.items():
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @property
    def processes(self) -> tuple[Process, ...]:
        """In the order of their start."""
        return tuple(self._processes)

    def launch(self, part: Part) -> Process:
        """Start a part without waiting for it; `wait_ready` does. Lets slow parts start side by side."""
        process = Process(part, self._note_exit)
        self._processes.append(process)
        return process

    def start(self, part: Part) -> Process:
        """Start a part and wait until it is ready. Raises `PartFailed`."""
        process = self.launch(part)
        self.wait_ready(process)
        return process

    def wait_ready(self, process: Process) -> None:
        """Wait until a part is ready. Raises `PartFailed` for it, or for any other part that ends meanwhile."""
        process.wait_ready(self.check)

    def stop_part(self, process: Process) -> None:
        """Stop one part that has done its work; its end is then no failure."""
        self._stopping.append(process)
        process.stop()
        self._processes.remove(process)

    def check(self) -> None:
        """Raises `PartFailed` for the first part that has ended on its own."""
        if first := self._first_to_end():
            raise first.failure()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until a part ends on its own and raise its `PartFailed`; return when `timeout_s` have passed."""
        with self._change:
            self._change.wait_for(self._first_to_end, timeout_s)
        self.check()

    def run(self, part: Part, *, on_tick: Callable[[], None] = lambda: None, every_s: float | None = None) -> None:
        """Run a finite part to its end, watching the others meanwhile; `on_tick` is called each `every_s` seconds.

        Raises `PartFailed` if it or another fails.
        """
        process = self.launch(part)
        with self._change:
            while not self._change.wait_for(self._first_to_end, every_s):
                on_tick()
        if process.returncode == 0:
            self.stop_part(process)
        self.check()

    def stop(self) -> None:
        """Stop every part, the last started first."""
        while self._processes:
            self.stop_part(self._processes[-1])

    def _first_to_end(self) -> Process | None:
        return next((process for process in self._ended if process not in self._stopping), None)

    def _note_exit(self, process: Process) -> None:
        with self._change:
            self._ended.append(process)
            self._change.notify_all()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
