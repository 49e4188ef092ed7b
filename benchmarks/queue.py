"""The cohort queue next to bare Redis, Celery and RQ.

    preceptor bench queue --json
    preceptor bench queue --cohorts 20000 --rounds 9 --axes quality,safety,factuality

**Measured:** cohorts per second that one producer hands over, one worker answers, and the producer reads back and lets
go of; and the processor time of each part. A cohort is eight candidates, about 4 KB of English; its answer has a
verdict for each on one axis. The judge answers at once.

- *queue*: `submit_many`, `take`, `settle_many`, `outcome_pages`, `forget`, with every guarantee: bounds, one task and
  one outcome a cohort, leases, acknowledged in the same atomic step that stores the answer. JSON and its validation at
  both ends are part of it. *Through the worker*: the same with the worker as it is shipped, 64 cohorts at once.
- *redis-py*: the same bytes by pipelined XADD, XREADGROUP, XACK and XDEL, and back by XADD, XREAD and XDEL, 64 at a
  time, with hiredis; no JSON, and nothing is once only. This is the limit, as far as a client in Python can go.
- *Celery* and *RQ*, with the same strings as argument and result: a prefetch of 64 and the solo pool; jobs enqueued 64
  at a time and the worker that does not fork.

**How:** on every side one producer process and one worker process, already running, and one Redis for all as
`preceptor up` starts it (append-only file, fsync every second). At most 1,024 cohorts are open on the first three
sides. Rounds of the sides alternate; figures are medians, ratios of two sides medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import TypeAdapter
from redis import Redis

from benchmarks.measuring.peers import ROOT, peers
from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.measuring.sides import interleaved
from benchmarks.queue_parts.payload import CANDIDATES, keep, load
from benchmarks.queue_parts.rounds import AHEAD, AT_ONCE, Producer, Round
from preceptor_client.contract import JudgeResponse, JudgeTask
from preceptor_client.stack import Process, Stack, redis_part
from preceptor_client.stack.process import Part

NAMES = {"queue": "queue", "worker": "queue, through the worker", "redis": "redis-py", "celery": "Celery", "rq": "RQ"}
_CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Programs:
    """The two processes of a side."""

    producer: Sequence[str]
    worker: Sequence[str]
    peer: bool = False


@dataclass
class Side:
    """A side at work: its processes, and what was measured of them."""

    producer: Producer
    worker: Process
    redis: Process
    count: int
    rounds: list[Round] = field(default_factory=list)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> None:
        """One round."""
        pids = {"worker": self.worker.pid, "redis": self.redis.pid}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self.rounds.append(done := self.producer.round(self.count, self.worker.exited.is_set))
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        for name, seconds in {"producer": done.cpu_s, **spent}.items():
            self.cpu_s.setdefault(name, []).append(seconds)

    def rates(self) -> list[float]:
        """Cohorts per second of each round but the first, which is not counted."""
        return [self.count / round.seconds for round in self.rounds[1:]]

    def figures(self) -> dict[str, object]:
        """Medians: cohorts per second, processor time a cohort."""
        return {
            "cohorts_per_s": median(self.rates()),
            "cohorts_a_round": self.count,
            "cpu_us": {name: 1e6 * median(spent[1:]) / self.count for name, spent in self.cpu_s.items()},
        }


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK


def programs(url: str, folder: Path, environment: Path) -> dict[str, Programs]:
    """What each side runs; `environment` holds the peers' programs."""
    own = (sys.executable, "-m", "benchmarks.queue_parts.preceptor_side")
    bare = (sys.executable, "-m", "benchmarks.queue_parts.redis_side")
    python, where = str(environment / "python"), (url, str(folder))
    celery = (str(environment / "celery"), "-A", "benchmarks.queue_parts.celery_side", "worker", "--pool", "solo")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    rq = (str(environment / "rq"), "worker", "--url", url, "--worker-class", "rq.worker.SimpleWorker", "--quiet")
    return {
        "queue": Programs((*own, "producer", *where), (*own, "taker", *where)),
        "worker": Programs((*own, "producer", *where, "worker"), (*own, "worker", *where)),
        "redis": Programs((*bare, "producer", *where), (*bare, "taker", *where)),
        "celery": Programs((python, "-m", "benchmarks.queue_parts.celery_side"), (*celery, *quiet), peer=True),
        "rq": Programs((python, "-m", "benchmarks.queue_parts.rq_side"), (*rq, "benchmark"), peer=True),
    }


def measure(axes: Sequence[str], cohorts: int, peer_cohorts: int, rounds: int, environment: Path | None) -> Any:
    """Every side's figures, and the sizes of the payload; without an `environment` no peers."""
    with tempfile.TemporaryDirectory() as name, Stack() as stack, ExitStack() as resources:
        folder = Path(name)
        sizes = keep(folder, axes)
        server = stack.start(redis_part(folder / "redis"))
        url = server.part.url or ""
        env = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "BENCHMARK_REDIS": url, "BENCHMARK_FOLDER": name}
        sides = {}
        for side, run in programs(url, folder, environment or Path()).items():
            if run.peer and environment is None:
                continue
            worker = stack.start(Part(f"{side}-worker", tuple(run.worker), folder / f"{side}-worker.log", env))
            log = folder / f"{side}-producer.log"
            producer = resources.enter_context(Producer(run.producer, {**os.environ, **env}, log))
            count = peer_cohorts if run.peer else cohorts
            sides[side] = Side(producer, worker, server, count)
        began = time.perf_counter()
        interleaved({side: at_work.run for side, at_work in sides.items()}, rounds)
        return {
            "sides": {side: at_work.figures() for side, at_work in sides.items()},
            "ratios": {side: over(sides["queue"], at_work) for side, at_work in sides.items()},
            "json_us": conversions(folder),
            "task_bytes": sizes[0],
            "response_bytes": sizes[1],
            "redis_server": version_of(url),
            "seconds": time.perf_counter() - began,
        }


def over(one: Side, other: Side) -> float:
    """How many times as fast, in the middle of the rounds."""
    return median(a / b for a, b in zip(one.rates(), other.rates(), strict=True))


def version_of(url: str) -> str:
    """Of the server."""
    with Redis.from_url(url) as redis:
        info: Any = redis.info("server")
        return str(info["redis_version"])


def conversions(folder: Path) -> dict[str, float]:
    """Microseconds of processor time that writing and reading a cohort and its response as JSON take."""
    task, response = load(folder)
    tasks, responses = TypeAdapter(JudgeTask), TypeAdapter(JudgeResponse)
    a_task, a_response = tasks.validate_json(task), responses.validate_json(response)
    calls: dict[str, Callable[[], object]] = {
        "task written": lambda: tasks.dump_json(a_task),
        "task read": lambda: tasks.validate_json(task),
        "response written": lambda: responses.dump_json(a_response),
        "response read": lambda: responses.validate_json(response),
    }
    return {name: median(_microseconds(call) for _ in range(9)) for name, call in calls.items()}


def _microseconds(call: Callable[[], object], times: int = 500) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - began) / times


def tables(result: dict[str, Any]) -> list[Table]:
    """Of the page."""
    rates = [
        (NAMES[name], side["cohorts_per_s"], *(side["cpu_us"][part] for part in ("producer", "worker", "redis")))
        for name, side in result["sides"].items()
    ]
    whole = result["sides"]["queue"]["cpu_us"]
    json_us = sum(result["json_us"].values())
    parts = [
        *result["json_us"].items(),
        ("Redis", whole["redis"]),
        ("the rest: redis-py, asyncio, the queue, the judge", whole["producer"] + whole["worker"] - json_us),
    ]
    sizes = f"{result['task_bytes']:,} bytes a task, {result['response_bytes']:,} a response"
    return [
        Table(
            f"Cohorts there and back ({sizes})",
            ("side", "cohorts/s", "producer, µs of processor time a cohort", "worker, µs", "Redis, µs"),
            rates,
        ),
        Table("Where the queue's processor time goes", ("part", "µs a cohort"), parts),
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    options = arguments().parse_args()
    axes = tuple(options.axes.split(","))
    environment = None if options.no_peers else peers()
    figures = measure(axes, options.cohorts, options.peer_cohorts, options.rounds, environment)
    ratios, seconds = figures.pop("ratios"), figures.pop("seconds")
    server = figures.pop("redis_server")
    wanted = {"share_of_redis": ("redis", 0.5), "vs_celery": ("celery", 10), "vs_rq": ("rq", 10)}
    goals = [Goal(name, ratios[side], ">=", bound) for name, (side, bound) in wanted.items() if side in ratios]
    also = {"redis-server": server}
    if environment:
        also |= peer_versions()
    print(f"{options.rounds} rounds in {seconds:.0f} s", file=sys.stderr)
    figures |= {
        **{goal.figure: goal.measured for goal in goals},
        "candidates": CANDIDATES,
        "axes": list(axes),
        "at_once": AT_ONCE,
        "ahead": AHEAD,
        "rounds": options.rounds,
    }
    finish(Result("queue", figures, goals, ("redis", "hiredis", "pydantic", "uvloop"), also), options)


def arguments() -> argparse.ArgumentParser:
    """The command's."""
    made = parser(__doc__, "queue")
    made.add_argument("--cohorts", type=int, default=8_000, help="a round, of our sides and of bare Redis")
    made.add_argument("--peer-cohorts", type=int, default=1_000, help="a round of Celery and of RQ")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--axes", default="quality", help="that a response has verdicts on")
    made.add_argument("--no-peers", action="store_true", help="neither Celery nor RQ")
    return made


def peer_versions() -> dict[str, str]:
    """Of the programs compared with, as they are pinned."""
    lines = (ROOT / "requirements" / "peers.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return {name: pinned[name] for name in ("celery", "rq")}


if __name__ == "__main__":
    main()
