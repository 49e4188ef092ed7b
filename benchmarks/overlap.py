"""Rollouts, judging and updates at once, against one after the other.

    preceptor bench overlap --json

The real loop, Redis, queue and sampler train a policy by online DPO, with staleness 0 (every stage waits for the one
before) and with staleness 3. The judge is a worker of its own that answers at a set speed and uses no processor, so
that a batch takes it 0.25, 0.5, 1 or 2 times as long as sampling and updating together; sampler and learner have one
processor each. Staleness 0 and 3 run in turn, three rounds, medians; steps in which the pipeline fills or drains are
left out. Then the same with the demo's nano teacher on vLLM, with judge, rewrite service and worker as processes: on
two processors they all compete, so that there is less to win.

`async_over_sync`: steps a second, overlapped over synchronous. `step_over_longest_stage`: the mean overlapped step over
the longest stage, where sampling and updating (with the sync of the weights) are measured in the synchronous run, in
which each runs alone, and judging is the set time. No pipeline can be below 1. `trainer_idle_share`: the part of the
time in which it neither samples nor updates nor syncs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.overlap_parts.policy import Sizes, config, save_policy, write_documents
from benchmarks.overlap_parts.teacher import with_nano_teacher
from benchmarks.overlap_parts.timing import Timing, compared
from preceptor_client.stack import Part, Stack, redis_part
from preceptor_trainer.run import run

SPEEDS = (0.25, 0.5, 1.0, 2.0)
"""How long judging takes, over sampling and updating together."""
_FILLING = 3
"""Steps before the caches are warm, beside those that fill the pipeline."""


class Bench:
    """Timed runs in `folder` with judges in `stack`."""

    def __init__(self, stack: Stack, folder: Path, sizes: Sizes, options: argparse.Namespace) -> None:
        self._stack = stack
        self._folder = folder
        self._sizes = sizes
        self._options = options
        self._runs = 0
        self._redis_url = stack.start(redis_part(folder / "redis")).part.url or ""

    def judge(self, name: str, batch_s: float) -> None:
        """Start the judge that takes `batch_s` for a batch; the queue `name` is its own."""
        arguments = {
            "redis-url": self._redis_url,
            "namespace": name,
            "cohort-s": batch_s / self._sizes.cohorts_per_step,
            "latency-s": self._options.latency_ms / 1000,
        }
        command = [sys.executable, "-m", "benchmarks.overlap_parts.timed_judge"]
        command += [f"--{key}={value}" for key, value in arguments.items()]
        self._stack.launch(Part(name=name, command=tuple(command), log=self._folder / f"{name}.log"))

    def timed(self, judge: str, limit: int) -> Timing:
        """One run."""
        self._runs += 1
        filling, draining = _FILLING + limit, limit
        settings = config(
            self._folder,
            self._folder / f"run-{self._runs}",
            self._sizes,
            steps=filling + self._options.steps + draining,
            limit=limit,
            redis_url=self._redis_url,
            namespace=judge,
        )
        asyncio.run(run(settings))
        return Timing.read(settings.out, filling=filling, draining=draining)


def timed_judges(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each speed of judging gives."""
    bench.judge("instant", 0.0)
    calm = bench.timed("instant", 0)
    judging_s = {f"judge-{speed:g}": speed * (calm.sampling + calm.updating) for speed in options.speeds}
    for name, seconds in judging_s.items():
        bench.judge(name, seconds)
    timings: dict[tuple[str, int], list[Timing]] = defaultdict(list)
    limits = [0, options.staleness]
    for number in range(options.rounds):
        for name in judging_s:
            for limit in limits:
                print(f"round {number + 1} of {options.rounds}: {name}, staleness {limit}", file=sys.stderr)
                timings[name, limit].append(bench.timed(name, limit))
        limits.reverse()
    return [
        {"speed": speed, **compared(timings[name, 0], timings[name, options.staleness], seconds)}
        for speed, (name, seconds) in zip(options.speeds, judging_s.items(), strict=True)
    ]


def measure(sizes: Sizes, options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_policy(folder / "policy", sizes)
        write_documents(folder / "documents.jsonl", sizes, 200)
        with Stack() as stack:
            speeds = timed_judges(Bench(stack, folder, sizes, options), options)
        figures = {
            "sizes": asdict(sizes),
            "staleness": options.staleness,
            "steps": options.steps,
            "rounds": options.rounds,
            "latency_ms": options.latency_ms,
            "speeds": speeds,
        }
        if options.teacher_steps:
            figures["teacher"] = with_nano_teacher(folder / "teacher", options)
    even = min(speeds, key=lambda each: abs(each["speed"] - 1))
    names = ("async_over_sync", "step_over_longest_stage", "trainer_idle_share", "learner_waiting_share")
    return {**{name: even[name] for name in names}, **figures}


def tables(result: dict[str, Any]) -> list[Table]:
    """For docs/benchmarks.md."""
    columns = (
        "judging over the rest",
        "sampling s",
        "judging s",
        "updating s",
        "step in turn s",
        "step overlapped s",
        "async over sync",
        "over the longest stage",
        "idle",
        "idle in turn",
        "learner waits",
    )

    def row(label: object, figures: dict[str, Any]) -> list[object]:
        stages = figures["stages_s"]
        return [
            label,
            stages["sampling"],
            stages["judging"],
            stages["updating"],
            figures["sync_step_s"],
            figures["async_step_s"],
            figures["async_over_sync"],
            figures["step_over_longest_stage"],
            figures["trainer_idle_share"],
            figures["trainer_idle_share_sync"],
            figures["learner_waiting_share"],
        ]

    sizes = result["sizes"]
    policy = f"width {sizes['width']}, {sizes['layers']} layers, prefix {sizes['prefix']}, suffix {sizes['suffix']}"
    step = f"{sizes['cohorts_per_step']} cohorts a step, K = {sizes['rollouts']}"
    made = [
        Table(
            f"A judge of set speed; policy: {policy}; {step}; staleness {result['staleness']}",
            columns,
            [row(figures["speed"], figures) for figures in result["speeds"]],
        )
    ]
    if teacher := result.get("teacher"):
        made.append(
            Table(
                f"The nano teacher; {teacher['cohorts_per_step']} cohorts a step, K = {teacher['rollouts']}; "
                "judging is what is left of a synchronous step",
                columns,
                [row(f"{teacher['speed']:.2f} (as it is)", teacher)],
            )
        )
    return made


def main() -> None:
    """Parse the arguments, measure, print."""
    made = parser(__doc__, "overlap")
    made.add_argument("--steps", type=int, default=7, help="steps measured in a run")
    made.add_argument("--rounds", type=int, default=3, help="rounds of staleness 0 and more in turn")
    made.add_argument("--staleness", type=int, default=3, help="of the overlapped runs")
    made.add_argument("--latency-ms", type=float, default=20, help="of an answer, beside its turn")
    made.add_argument("--speeds", type=float, nargs="+", default=SPEEDS, help="judging over the rest")
    made.add_argument("--teacher-steps", type=int, default=8, help="steps with the nano teacher; 0 leaves it out")
    made.add_argument("--teacher-rounds", type=int, default=2, help="rounds with the nano teacher")
    made.add_argument("--width", type=int, default=192)
    made.add_argument("--layers", type=int, default=2)
    options = made.parse_args()
    sizes = Sizes(width=options.width, layers=options.layers, prefix=32, suffix=24, rollouts=16, cohorts_per_step=4)
    figures = measure(sizes, options)
    goals = [
        Goal("async_over_sync", figures["async_over_sync"], ">=", 1.8),
        Goal("step_over_longest_stage", figures["step_over_longest_stage"], "<=", 1.1),
    ]
    finish(Result("overlap", figures, goals, packages=("torch", "transformers", "redis")), options)


if __name__ == "__main__":
    main()
