"""The load: wrk, driven by load.lua.

In: a URL, a body in which `@` stands for a number that no other request has, how many connections, how long, how many
requests a second. Out: what wrk measured. Raises SystemExit if there is no wrk, or if any request failed: a gateway
that refuses is fast.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Target:
    """What is asked: `body` is a file."""

    url: str
    key: str
    body: Path


@dataclass(frozen=True)
class Measured:
    """By wrk, of requests that all succeeded."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Its path. Raises SystemExit, with what to do, if there is none."""
    if (found := shutil.which("wrk")) is None:
        raise SystemExit("this benchmark needs wrk on PATH: apt-get install wrk, or https://github.com/wg/wrk")
    return found


def wrk_version() -> str:
    """As wrk says it."""
    said = subprocess.run([find_wrk(), "--version"], capture_output=True, text=True, check=False).stdout
    return said.split()[1]


def load(target: Target, *, connections: int, seconds: float, rate: float = 0.0) -> Measured:
    """Ask for `seconds` at `rate` requests a second; without one, each connection as soon as it has its answer."""
    command = [find_wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
    command += [
        "--timeout",
        "10s",
        "--script",
        str(_SCRIPT),
        target.url,
        "--",
        target.key,
        str(target.body),
        f"{rate:.3f}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"wrk failed: {ran.stdout[-500:]}{ran.stderr[-500:]}")
    said = json.loads(ran.stdout.splitlines()[-1])
    if said["failed"] or not said["requests"]:
        raise SystemExit(f"{said['failed']} of {said['requests']} requests to {target.url} failed")
    return Measured(said["requests"], said["seconds"], said["p50_ms"], said["p99_ms"])
