"""The whole service side on this machine: Redis, a teacher on vLLM, judge, rewrite, and judge workers.

In: a `Stack` to start the parts in, a folder for their data and logs, a teacher. Out: where everything listens. Waits
until all of it is ready; what can start side by side does. One folder serves one stack at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preceptor_client.stack.parts import judge_part, redis_part, rewrite_part, vllm_part, worker_part
from preceptor_client.stack.probes import LOOPBACK, claim_port
from preceptor_client.stack.process import Part
from preceptor_client.stack.stack import Stack


class FolderInUse(RuntimeError):
    """Another stack keeps its data in this folder."""


@dataclass(frozen=True)
class Ports:
    """Where the parts shall listen; 0 means any free port."""

    redis: int = 0
    teacher: int = 0
    judge: int = 0
    rewrite: int = 0


@dataclass(frozen=True)
class Endpoints:
    """Where the parts listen. `model` is the teacher's name at `teacher_url`."""

    redis_url: str
    teacher_url: str
    model: str
    judge_url: str
    rewrite_url: str
    worker_metrics_urls: tuple[str, ...]


@contextmanager
def sole_use(folder: Path, *, wait: bool = False) -> Iterator[Path]:
    """Hold a folder for this process; the kernel lets go of it however the process ends, and no file is left behind.

    Raises `FolderInUse` if it is held elsewhere; with `wait`, waits for its turn instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another stack is using {folder}: stop it, or name another folder") from None
        yield folder
    finally:
        os.close(handle)


def start_local_stack(
    stack: Stack,
    folder: Path,
    teacher: str | Path,
    *,
    model: str = "teacher",
    rubrics: str = "nano",
    ports: Ports | None = None,
    workers: int = 1,
    max_model_len: int | None = None,
    overrides: Sequence[str] = (),
    worker_overrides: Sequence[str] = (),
    on_change: Callable[[Part, bool], None] = lambda part, ready: None,
) -> Endpoints:
    """Start everything and return when it is ready. `overrides` are `--a.b=c` settings of all services.

    `on_change(part, ready)` is called when a part has been started and when it is ready. Raises `PartFailed`,
    `MissingProgram`, `PortTaken`.
    """
    ports = ports or Ports()

    def launch(*parts: Part) -> list[str]:
        processes = []
        for part in parts:
            processes.append(stack.launch(part))
            on_change(part, False)
        for process in processes:
            stack.wait_ready(process)
            on_change(process.part, True)
        return [part.url or "" for part in parts]

    redis_url, teacher_url = launch(
        redis_part(folder / "redis", port=ports.redis),
        vllm_part(teacher, model, folder / "teacher", port=ports.teacher, name="teacher", max_model_len=max_model_len),
    )
    logs = folder / "services"
    store = f"--store.url={redis_url}"  # the judge's batches and verdict cache; training cohorts do not come twice
    judge_port, rewrite_port = claim_port(ports.judge), claim_port(ports.rewrite)
    page = [  # of both services: where the runs are, and where the other one is
        f"--queue.url={redis_url}",
        f"--dashboard.judge_url=http://{LOOPBACK}:{judge_port}",
        f"--dashboard.rewrite_url=http://{LOOPBACK}:{rewrite_port}",
    ]
    judge_url, rewrite_url, *metrics = launch(
        judge_part(logs, teacher_url, model, rubrics=rubrics, port=judge_port, overrides=[store, *page, *overrides]),
        rewrite_part(logs, teacher_url, model, rubrics=rubrics, port=rewrite_port, overrides=[*page, *overrides]),
        *(
            worker_part(
                logs,
                teacher_url,
                model,
                redis_url,
                rubrics=rubrics,
                name=f"worker-{number}",
                overrides=[*overrides, *worker_overrides],
            )
            for number in range(1, workers + 1)
        ),
    )
    return Endpoints(redis_url, teacher_url, model, judge_url, rewrite_url, tuple(metrics))
