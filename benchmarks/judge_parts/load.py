"""The load: a process that posts prepared bodies over kept connections, so many at a time, and times it.

    python -m benchmarks.judge_parts.load        `Job`s on standard input, a line each; `Done`s on standard output

In: a file of bodies, a line each. Out: a file of answers in their order, a line each; how long it took from the first
byte sent to the last answer read as JSON, each answer's time, and this process's own processor time. Raises, and so
ends, at the first answer that is not 200.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import uvloop


@dataclass(frozen=True)
class Job:
    """What to send, and where to."""

    url: str
    bodies: str
    answers: str
    in_flight: int


@dataclass(frozen=True)
class Done:
    """How it went."""

    seconds: float
    cpu_s: float
    latencies_s: Sequence[float]


async def send(job: Job, bodies: Sequence[bytes]) -> tuple[Done, list[Any]]:
    """Every body of a job; the answers in their order."""
    answers: list[Any] = [None] * len(bodies)
    latencies = [0.0] * len(bodies)
    left = iter(range(len(bodies)))
    connector = aiohttp.TCPConnector(limit=job.in_flight)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, raise_for_status=True) as http:
        began, cpu = time.perf_counter(), time.process_time()

        async def work() -> None:
            for place in left:
                sent = time.perf_counter()
                async with http.post(job.url, data=bodies[place]) as reply:
                    answers[place] = json.loads(await reply.read())
                latencies[place] = time.perf_counter() - sent

        async with asyncio.TaskGroup() as group:
            for _ in range(job.in_flight):
                group.create_task(work())
        return Done(time.perf_counter() - began, time.process_time() - cpu, latencies), answers


class Load:
    """The process, seen from the benchmark's. Use as `with Load(folder) as load`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.judge_parts.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def prepare(self, name: str, url: str, bodies: Sequence[str], in_flight: int) -> Job:
        """A job that can be sent any number of times."""
        path = self._folder / f"{name}.bodies"
        path.write_text("\n".join(bodies), encoding="utf-8")
        return Job(url, str(path), str(path.with_suffix(".answers")), in_flight)

    def send(self, job: Job) -> Done:
        """Do a job. Raises SystemExit if an answer was not 200."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load ended: see above for the answer that it got")
        return Done(**json.loads(line))


def answers_to(job: Job) -> list[Any]:
    """What came back the last time."""
    return [json.loads(line) for line in Path(job.answers).read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Do what standard input says until it ends."""
    for line in sys.stdin:
        job = Job(**json.loads(line))
        done, answers = uvloop.run(send(job, Path(job.bodies).read_bytes().splitlines()))
        Path(job.answers).write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
        print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    main()
