"""One part of the stack: a child process that is started, probed, watched and stopped.

In: a `Part` (what to run, where its log goes, when it is ready). Out: a `Process` whose end is an event.
Guarantees: the child leads a process group of its own, so that stopping it stops its own children too; its output is in
its log; it gets SIGTERM when this process dies, even by SIGKILL (Linux: and when the thread that started it ends, so
start it from one that lives as long). Waits for: readiness, at most `ready_timeout_s`; the end, at most `grace_s`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preceptor_client.stack.probes import Probe

_LAUNCHER = Path(__file__).with_name("_exec.py")
_PROBE_INTERVAL_S = 0.1
_LAST_LINES = 20


@dataclass(frozen=True)
class Part:
    """What to run. `env` is added to this process's environment; without a `probe` the part is ready once it runs."""

    name: str
    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    url: str | None = None
    """Where the part listens, for those that do."""
    ready_timeout_s: float = 120.0
    grace_s: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""


class PartFailed(RuntimeError):
    """A part could not start, was not ready in time, or ended on its own. Names its log and shows the log's end."""

    def __init__(self, part: Part, what: str, returncode: int | None = None) -> None:
        tail = last_lines(part.log)
        shown = f", whose last lines are:\n{tail}" if tail else " (empty)"
        super().__init__(f"{part.name} {what}; its log is {part.log}{shown}")
        self.part = part
        self.returncode = returncode


class Process:
    """A running `part`. `on_exit` is called once, from a thread of its own, when the process has ended."""

    def __init__(self, part: Part, on_exit: Callable[[Process], None] = lambda _: None) -> None:
        self.part = part
        self.exited = threading.Event()
        self.returncode: int | None = None
        """The exit status, negative for a signal; None while it runs."""
        self._stop_lock = threading.Lock()
        self._stopped = False
        part.log.parent.mkdir(parents=True, exist_ok=True)
        with part.log.open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *part.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **part.env},
                start_new_session=True,
            )
        self.pid = self._popen.pid
        threading.Thread(target=self._watch, args=(on_exit,), name=f"watch-{part.name}", daemon=True).start()

    def _watch(self, on_exit: Callable[[Process], None]) -> None:
        # Without reaping: the zombie keeps its pid, so that `stop` can never signal a stranger's group.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        self.returncode = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self.exited.set()
        on_exit(self)

    def wait_ready(self, watch: Callable[[], None] = lambda: None) -> None:
        """Return when the probe says ready. Raises `PartFailed` at once if the process ends, or when time is up.

        `watch` is called between two questions and may raise to give up.
        """
        if self.part.probe is None:
            return
        deadline = time.monotonic() + self.part.ready_timeout_s
        while True:
            reason = self.part.probe()
            if self.exited.is_set():
                raise self.failure()
            if reason is None:
                return
            watch()
            if time.monotonic() >= deadline:
                raise PartFailed(self.part, f"was not ready after {self.part.ready_timeout_s:.0f} s ({reason})")
            self.exited.wait(_PROBE_INTERVAL_S)

    def failure(self) -> PartFailed:
        """The error that says how this process ended."""
        code = self.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return PartFailed(self.part, how, code)

    def stop(self, grace_s: float | None = None) -> int:
        """End the whole group: SIGTERM, then SIGKILL for what is left after the grace period. Returns the status."""
        with self._stop_lock:
            if not self._stopped:
                deadline = time.monotonic() + (self.part.grace_s if grace_s is None else grace_s)
                self._signal(signal.SIGTERM)
                self.exited.wait(max(0.0, deadline - time.monotonic()))
                if not self.exited.is_set():
                    self._signal(signal.SIGKILL)
                    self.exited.wait()
                self._popen.wait()
                self._end_stragglers(deadline)
                self._stopped = True
        assert self.returncode is not None
        return self.returncode

    def _end_stragglers(self, deadline: float) -> None:
        """Children that outlive their leader get the rest of the grace period. No event tells when a group is empty."""
        while self._signal(0):
            if time.monotonic() >= deadline:
                self._signal(signal.SIGKILL)
                return
            time.sleep(0.02)

    def _signal(self, number: int) -> bool:
        """Signal the group; False if nobody is left in it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def last_lines(log: Path, count: int = _LAST_LINES) -> str:
    """The last lines of a log, indented; empty if there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65_536))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join("  " + line for line in text.rstrip().splitlines()[-count:])
