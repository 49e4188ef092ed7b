"""Nothing lost while everything is killed: real processes, faults at random moments, an audit from outside.

    preceptor bench chaos --json
    preceptor bench chaos --runs 4 --faults 15 --seed 1 --json
    preceptor bench chaos --teacher DIR_OF_A_NANO_TEACHER --dir runs/chaos

Each run starts Redis, the teacher on vLLM, judge, rewrite, two workers and a trainer, keeps batches going through the
judge, and hits workers, judge, vLLM, Redis and trainer with SIGKILL, SIGSTOP and SIGTERM, one fault after the other.
Then it lets everything finish and compares what came out with what went in. Exit status 1 if anything was lost or
doubled, a failed verdict was a reward, or a trainer did not resume; the run's folder is kept then. Last line: one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from benchmarks.chaos_parts.plan import Fault, plan
from benchmarks.chaos_parts.run import ChaosRun, Outcome, Recovery, Stuck
from preceptor_client.cli.up import nano_teacher
from preceptor_client.stack import PartFailed, find_redis_server, find_vllm, vllm_version


def report(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The figures over all runs."""
    recoveries = [recovery for outcome in outcomes for recovery in outcome.recoveries]
    targets = sorted({recovery.fault.target for recovery in recoveries})
    kinds = sorted({recovery.fault.kind for recovery in recoveries})
    summed = ("resumes", "resumed_ok", "steps", "cohorts_trained", "cohorts_dropped", "batch_items")
    return {
        "faults": len(recoveries),
        "faults_by_part": Counter(recovery.fault.target.value for recovery in recoveries),
        "faults_by_kind": Counter(recovery.fault.kind.value for recovery in recoveries),
        **{
            name: sum(len(getattr(outcome.findings, name)) for outcome in outcomes)
            for name in ("lost", "doubled", "failed_as_reward", "too_stale")
        },
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in (*summed, "failed_verdicts")},
        "mean_recovery_s": _mean(recoveries),
        "mean_recovery_s_by_part": {
            target.value: _mean([each for each in recoveries if each.fault.target is target]) for target in targets
        },
        "mean_recovery_s_by_kind": {
            kind.value: _mean([each for each in recoveries if each.fault.kind is kind]) for kind in kinds
        },
        "max_recovery_s": max((round(recovery.seconds, 1) for recovery in recoveries), default=None),
    }


def _mean(recoveries: Sequence[Recovery]) -> float | None:
    return round(fmean(recovery.seconds for recovery in recoveries), 2) if recoveries else None


def show(outcomes: Sequence[Outcome]) -> None:
    """Every fault, with the seconds until all had recovered."""
    for number, outcome in enumerate(outcomes, start=1):
        for recovery in outcome.recoveries:
            print(f"run {number}  {recovery.fault!s:24} {recovery.seconds:6.1f} s")


def versions() -> dict[str, str]:
    """Of what took part."""
    shown = subprocess.run([find_redis_server(), "--version"], capture_output=True, text=True, check=False).stdout
    redis = re.search(r"v=(\S+)", shown)
    return {
        "preceptor": version("preceptor"),
        "python": platform.python_version(),
        "redis": redis[1] if redis else "",
        "vllm": vllm_version(find_vllm()),
        "torch": version("torch"),
    }


def run_one(folder: Path, teacher: Path, faults: Sequence[Fault], options: argparse.Namespace, number: int) -> Outcome:
    """One run in `folder`. What goes wrong with it is told, and is in the outcome's `error`."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"run {number}, {time.monotonic() - began:5.1f} s: {what}", file=sys.stderr, flush=True)

    chaos = ChaosRun(folder, teacher, faults, seed=options.seed + number, say=say)
    try:
        chaos.run()
    except (PartFailed, Stuck) as error:
        chaos.outcome.error = str(error)
        say(str(error))
    for name, found in vars(chaos.outcome.findings).items():
        for line in found:
            say(f"{name.upper()}: {line}")
    return chaos.outcome


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser("preceptor bench chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1, help="how often everything is started anew")
    parser.add_argument("--faults", type=int, default=15, help="faults a run; 15 hit each part in each way once")
    parser.add_argument("--seed", type=int, default=0, help="of the faults, their order and their moments")
    parser.add_argument("--teacher", help="directory of a nano teacher (default: trained once)")
    parser.add_argument("--dir", help="keep data and logs here (default: a temporary folder, kept only on failure)")
    parser.add_argument("--json", action="store_true", help="the figures alone, without a table")
    options = parser.parse_args()
    # Two cores are shared by eight processes: threads that spin while they wait would take them from the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    teacher = Path(options.teacher or nano_teacher())
    root = Path(options.dir or tempfile.mkdtemp(prefix="preceptor-chaos-")).resolve()
    faults, began, outcomes = plan(options.runs * options.faults, options.seed), time.monotonic(), []
    for number in range(options.runs):
        folder = root / f"chaos-{number + 1}"
        folder.mkdir(parents=True)
        mine = faults[number * options.faults : (number + 1) * options.faults]
        outcomes.append(run_one(folder, teacher, mine, options, number + 1))
        if outcomes[-1].failed:
            print(f"kept for study: {folder}", file=sys.stderr)
            break
        if not options.dir:
            shutil.rmtree(folder)
    failed = any(outcome.failed for outcome in outcomes)
    figures = {
        "benchmark": "chaos",
        "runs": len(outcomes),
        **report(outcomes),
        "errors": [outcome.error for outcome in outcomes if outcome.error],
        "seed": options.seed,
        "cpus": os.cpu_count(),
        "wall_s": round(time.monotonic() - began, 1),
        "versions": versions(),
    }
    if failed:
        figures["folder"] = str(root)
    elif not options.dir:
        root.rmdir()
    if not options.json:
        show(outcomes)
    print(json.dumps(figures))
    sys.exit(failed)


if __name__ == "__main__":
    main()
