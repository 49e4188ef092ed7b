"""One project of docker-compose.yml: up, looked at, hit, down.

In: the environment that compose reads. Out: states of containers, folders of volumes. Raises `SystemExit`, with what
was waited for and the end of that container's log, when something does not come in time. Killing a container's process
and reading a volume's folder need root, and an engine on this machine.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose.shell import ROOT, told

PROJECT = "preceptor-test"
SERVERS = ("redis", "teacher", "policy", "judge", "rewrite", "worker")
_TICK_S = 0.5
_FILES = ("docker-compose.yml", "tests/compose/override.yml")


@dataclass(frozen=True)
class State:
    """A container as the engine sees it."""

    id: str
    status: str
    health: str
    exit_code: int
    pid: int
    restarts: int

    @property
    def well(self) -> bool:
        """Healthy; or running, for one that has no health check."""
        return self.status == "running" and self.health in ("healthy", "none")


class ComposeStack:
    """The project, in an environment of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {**os.environ, **env}

    def compose(self, *arguments: str) -> str:
        """What `docker compose` says."""
        files = [word for file in _FILES for word in ("--file", str(ROOT / file))]
        return told("docker", "compose", "--project-name", PROJECT, *files, *arguments, env=self.env)

    def config(self) -> dict[str, Any]:
        """The project, resolved."""
        resolved: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return resolved

    def state(self, service: str) -> State | None:
        """Of the service's container; None if there is none."""
        id = self.compose("ps", "--all", "--quiet", service).strip()
        if not id:
            return None
        (found,) = json.loads(told("docker", "inspect", id))
        state = found["State"]
        health = state.get("Health", {}).get("Status", "none")
        return State(id, state["Status"], health, state["ExitCode"], state["Pid"], found["RestartCount"])

    def wait(self, service: str, wanted: Callable[[State], bool], what: str, *, within_s: float) -> State:
        """The service's state, as soon as it is as `wanted`."""
        found: list[State] = []

        def reached() -> bool:
            state = self.state(service)
            found[:] = [state] if state else []
            return state is not None and wanted(state)

        until(reached, f"{service} {what}", within_s=within_s, tell=lambda: self.logs(service))
        return found[0]

    def kill(self, service: str) -> State:
        """SIGKILL for the service's main process, as the kernel does when memory runs out. Returns what was killed."""
        state = self.wait(service, lambda state: state.pid > 0, "runs", within_s=60)
        os.kill(state.pid, signal.SIGKILL)
        return state

    def logs(self, service: str) -> str:
        """The end of its log."""
        return self.compose("logs", "--no-log-prefix", "--tail", "20", service)

    def volume(self, name: str) -> Path:
        """The folder of a volume, on this machine."""
        return Path(told("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"{PROJECT}_{name}").strip())

    def remains(self) -> dict[str, list[str]]:
        """What of the project is still in the engine."""
        mine = f"label=com.docker.compose.project={PROJECT}"
        kinds = {"containers": ["ps", "--all"], "volumes": ["volume", "ls"], "networks": ["network", "ls"]}
        found = {kind: told("docker", *words, "--quiet", "--filter", mine).split() for kind, words in kinds.items()}
        return {kind: ids for kind, ids in found.items() if ids}

    def image_mb(self, image: str) -> float:
        """Its size, unpacked."""
        return round(int(told("docker", "image", "inspect", "--format", "{{.Size}}", image)) / 1e6, 1)


def until(reached: Callable[[], bool], what: str, *, within_s: float, tell: Callable[[], str] = lambda: "") -> None:
    """Return when `reached`. Raises `SystemExit`, with what `tell` tells, when it takes too long."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"test-compose: {what}: not within {within_s:.0f} s\n{tell()}")
        pause.wait(_TICK_S)
