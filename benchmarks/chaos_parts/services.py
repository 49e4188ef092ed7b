"""The services under fire: Redis, the teacher on vLLM, judge, rewrite and two workers, each hit and started again.

In: a folder and the teacher. Out: real processes on ports that they keep over all their lives, with their data. Every
life has a log of its own. Raises `PartFailed` when a part ends that nobody hit. Stops everything on leaving.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.chaos_parts.plan import Fault, Kind, Target
from benchmarks.chaos_parts.progress import gauge
from preceptor_client.stack import (
    Part,
    Process,
    Stack,
    judge_part,
    redis_part,
    rewrite_part,
    vllm_part,
    worker_part,
)

MODEL = "nano-teacher"
WORKERS = 2
_LEASE_S = 4
_IN_HAND = {
    Target.WORKER: "preceptor_worker_in_hand",
    Target.JUDGE: "preceptor_batch_items_in_hand",
    Target.VLLM: "vllm:num_requests_running",
}


class Services:
    """Everything but the trainer."""

    def __init__(self, folder: Path, teacher: Path) -> None:
        redis = redis_part(folder / "redis")
        vllm = vllm_part(teacher, MODEL, folder / "teacher", name="vllm")
        self.redis_url, engine = _url(redis), _url(vllm)
        logs = folder / "services"
        store = [f"--store.url={self.redis_url}", f"--batches.lease_s={_LEASE_S}", "--batches.concurrency=1"]
        judge = judge_part(logs, engine, MODEL, overrides=store)
        rewrite = rewrite_part(logs, engine, MODEL)
        self.judge_url, self.rewrite_url = _url(judge), _url(rewrite)
        lease = [f"--queue.lease_s={_LEASE_S}", "--queue.concurrency=4"]
        workers = [
            worker_part(logs, engine, MODEL, self.redis_url, name=f"worker-{number}", overrides=lease)
            for number in range(WORKERS)
        ]
        self._stack = Stack()
        self._parts = [redis, vllm, judge, rewrite, *workers]
        self._of_target = {Target.REDIS: [redis], Target.VLLM: [vllm], Target.JUDGE: [judge], Target.WORKER: workers}
        self._processes: dict[str, Process] = {}
        self._lives: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self) -> None:
        """Start everything, side by side, and wait until it is ready."""
        for part in self._parts:
            self._launch(part)
        for process in self._processes.values():
            self._stack.wait_ready(process)

    def check(self) -> None:
        """Raises `PartFailed` if a part has ended on its own."""
        self._stack.check()

    def busy(self, fault: Fault) -> bool:
        """Whether the part that `fault` hits, or a worker if it has no work of its own, has work in hand."""
        if name := _IN_HAND.get(fault.target):
            return gauge(_url(self._hit(fault)), name) > 0
        return any(gauge(_url(part), _IN_HAND[Target.WORKER]) > 0 for part in self._of_target[Target.WORKER])

    def strike(self, fault: Fault) -> None:
        """Do it, and return when the part is ready again."""
        part = self._hit(fault)
        process = self._processes[part.name]
        if fault.kind is Kind.PAUSE:
            pause(process, fault.pause_s)
        else:
            if fault.kind is Kind.KILL:
                kill(process)
            self._stack.stop_part(process)
            process = self._launch(part)
        self._stack.wait_ready(process)

    def _hit(self, fault: Fault) -> Part:
        parts = self._of_target[fault.target]
        return parts[fault.pick % len(parts)]

    def _launch(self, part: Part) -> Process:
        life = self._lives[part.name] = self._lives.get(part.name, 0) + 1
        process = self._stack.launch(replace(part, log=part.log.with_stem(f"{part.name}-life-{life}")))
        self._processes[part.name] = process
        return process


def kill(process: Process) -> None:
    """SIGKILL to the whole group, without a word of warning."""
    os.killpg(process.pid, signal.SIGKILL)
    process.exited.wait()


def pause(process: Process, seconds: float) -> None:
    """SIGSTOP the whole group, and SIGCONT it after `seconds`."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def _url(part: Part) -> str:
    assert part.url is not None
    return part.url
