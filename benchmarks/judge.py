"""Verdicts a second through the judge service, running or private to the benchmark.

    preceptor bench judge --judge-url http://127.0.0.1:8101 --seconds 20
    preceptor bench judge --teacher DIR_OF_A_NANO_TEACHER

Cohorts of English text from Python's own documentation, every one different, so that neither the service's memory of
idempotent answers nor its sharing of equal candidates helps. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data import topics

from preceptor_client import AsyncPreceptorClient, ClientSettings, Status
from preceptor_client.calls import ALL_AXES, judge_texts_request
from preceptor_client.cli.up import nano_teacher
from preceptor_client.contract import JudgeRequest, Usage
from preceptor_client.stack import Stack, judge_part, vllm_part

PREFIX_WORDS, SUFFIX_WORDS = 24, 16


@dataclass
class Tally:
    """What came back within the time."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)


def requests(candidates: int, seed: int) -> Iterator[JudgeRequest]:
    """Cohorts without end."""
    words = " ".join(topics.topics.values()).split()
    dice = random.Random(seed)

    def cut(length: int) -> str:
        start = dice.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    while True:
        yield judge_texts_request(cut(PREFIX_WORDS), [cut(SUFFIX_WORDS) for _ in range(candidates)], axes=ALL_AXES)


async def measure(url: str, seconds: float, concurrency: int, candidates: int) -> dict[str, object]:
    """Judge for `seconds`, `concurrency` cohorts at once, after one cohort that is not counted."""
    source, tally = requests(candidates, seed=time.time_ns()), Tally()
    settings = ClientSettings(judge_url=url, max_connections=concurrency)
    async with AsyncPreceptorClient(settings=settings) as client:
        await client.judge(next(source))
        began = time.perf_counter()

        async def work() -> None:
            while (sent := time.perf_counter()) - began < seconds:
                response = await client.judge(next(source))
                tally.latencies_s.append(time.perf_counter() - sent)
                tally.statuses.update(verdict.status for verdict in response.verdicts)
                tally.usage += response.usage

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        elapsed = time.perf_counter() - began
    return report(tally, elapsed, concurrency, candidates)


def report(tally: Tally, elapsed: float, concurrency: int, candidates: int) -> dict[str, object]:
    """The figures, per second of wall time."""
    latencies = sorted(tally.latencies_s)
    verdicts = tally.statuses.total()
    return {
        "benchmark": "judge",
        "cpus": os.cpu_count(),
        "concurrency": concurrency,
        "candidates": candidates,
        "elapsed_s": round(elapsed, 2),
        "cohorts_per_s": round(len(latencies) / elapsed, 2),
        "verdicts_per_s": round(verdicts / elapsed, 1),
        "questions_per_s": round(tally.usage.calls / elapsed, 1),
        "tokens_per_s": round(tally.usage.tokens / elapsed),
        "latency_s": {
            "p50": round(statistics.median(latencies), 4),
            "p95": round(latencies[int(0.95 * (len(latencies) - 1))], 4),
        },
        "not_ok": verdicts - tally.statuses[Status.OK],
    }


def main() -> None:
    """Parse the arguments, start what is missing, measure, print."""
    parser = argparse.ArgumentParser("preceptor bench judge", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--judge-url", help="a running judge service; without it a private stack is started")
    parser.add_argument("--teacher", help="directory of a nano teacher for the private stack (default: trained once)")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--concurrency", type=int, default=8, help="cohorts in flight")
    parser.add_argument("--candidates", type=int, default=5, help="candidates a cohort")
    options = parser.parse_args()
    if options.judge_url:
        url = options.judge_url
        figures = asyncio.run(measure(url, options.seconds, options.concurrency, options.candidates))
    else:
        with tempfile.TemporaryDirectory() as folder, Stack() as stack:
            print("starting a teacher and a judge", file=sys.stderr)
            teacher = stack.start(vllm_part(options.teacher or nano_teacher(), "teacher", Path(folder))).part.url
            judge = stack.start(judge_part(Path(folder), teacher or "", "teacher")).part.url
            figures = asyncio.run(measure(judge or "", options.seconds, options.concurrency, options.candidates))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
