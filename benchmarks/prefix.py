"""How much of the prompts the teacher's servers need not read again: prefix caching over two replicas.

    preceptor bench prefix --json
    preceptor bench prefix --teacher DIR_OF_A_NANO_TEACHER --prefix-words 96 --cohorts 24

Two private vLLM servers answer the questions of the same kind of cohorts in four ways: the prompts as the nano rubrics
have them (what a cohort shares comes first) or with the shared part last; every cohort on one replica, as shipped, or
its questions scattered over both. Hits are vLLM's own counters, read before and after. Texts are random words of the
nano teacher's vocabulary, a token each. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from preceptor_client.cli.up import nano_teacher
from preceptor_client.stack import Stack, vllm_part
from preceptor_client.stack.parts import find_vllm, vllm_version
from preceptor_services.engine import Engine, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings

SUFFIX_WORDS, PROMPTS_PER_CALL, COHORTS_AT_ONCE = 16, 16, 4
AXES = ("quality", "factuality")
"""Those whose prompts hold the prefix."""


@dataclass(frozen=True)
class Way:
    """How the questions of cohorts are put."""

    shared_first: bool
    one_replica_a_cohort: bool

    @property
    def name(self) -> str:
        """As the report calls it."""
        place, spread = "first" if self.shared_first else "last", "affine" if self.one_replica_a_cohort else "scattered"
        return f"shared_{place}_{spread}"


@dataclass
class Tally:
    """What the servers counted while one axis was asked."""

    queries: float = 0
    hits: float = 0
    questions: int = 0
    failed: int = 0
    seconds: float = 0

    def report(self) -> dict[str, float]:
        """The figures."""
        return {
            "hit_rate": round(self.hits / self.queries, 4),
            "prompt_tokens": round(self.queries),
            "tokens_read": round(self.queries - self.hits),
            "questions": self.questions,
            "questions_per_s": round(self.questions / self.seconds, 1),
            "failed": self.failed,
        }

    def __iadd__(self, other: Tally) -> Tally:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@dataclass
class Bench:
    """Asks `engine` at `urls` in one way after the other; no text is used twice."""

    engine: Engine
    urls: Sequence[str]
    candidates: int
    prefix_words: int
    words: Sequence[str]
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self._rubrics = load_rubrics("nano").defaults

    def cohort(self, axis: str, shared_first: bool) -> list[Prompt]:
        """The questions of one axis about one cohort of random text."""
        prefix = " ".join(self.dice.choices(self.words, k=self.prefix_words))
        texts = [" ".join(self.dice.choices(self.words, k=SUFFIX_WORDS)) for _ in range(self.candidates)]
        if axis == "quality":
            asked = [{"a": a, "b": b} for a, b in permutations(texts, 2)]
        else:
            asked = [{"candidate": text} for text in texts]
        if shared_first:
            return [self._rubrics[axis].render(prefix=prefix, **about) for about in asked]
        return [Prompt(f"<{axis}> <a> {' <b> '.join(about.values())} <answer> {prefix}") for about in asked]

    async def run(self, way: Way, cohorts: int) -> dict[str, Tally]:
        """The counts of every axis."""
        return {axis: await self._run_axis(way, axis, cohorts) for axis in AXES}

    async def _run_axis(self, way: Way, axis: str, cohorts: int) -> Tally:
        asked = {f"{way.name}-{axis}-{n}": self.cohort(axis, way.shared_first) for n in range(cohorts)}
        if not way.one_replica_a_cohort:
            prompts = [prompt for own in asked.values() for prompt in own]
            self.dice.shuffle(prompts)
            asked = {"": prompts}
        before = await self._counters()
        began = time.perf_counter()
        places = asyncio.Semaphore(COHORTS_AT_ONCE)

        async def ask(prompts: list[Prompt], affinity: str) -> int:
            deadline = asyncio.get_running_loop().time() + 300
            async with places:
                answers, _ = await self.engine.ask(
                    prompts,
                    Generation("completion", max_tokens=1),
                    deadline=deadline,
                    max_prompts=PROMPTS_PER_CALL,
                    affinity=affinity,
                )
            return sum(answer.error is not None for answer in answers)

        failed = await asyncio.gather(*(ask(prompts, affinity) for affinity, prompts in asked.items()))
        seconds = time.perf_counter() - began
        after = await self._counters()
        return Tally(
            queries=after["vllm:prefix_cache_queries_total"] - before["vllm:prefix_cache_queries_total"],
            hits=after["vllm:prefix_cache_hits_total"] - before["vllm:prefix_cache_hits_total"],
            questions=sum(map(len, asked.values())),
            failed=sum(failed),
            seconds=seconds,
        )

    async def _counters(self) -> dict[str, float]:
        """vLLM's counters of the prefix cache, summed over the servers."""
        sums = {"vllm:prefix_cache_queries_total": 0.0, "vllm:prefix_cache_hits_total": 0.0}
        async with httpx.AsyncClient() as http:
            for url in self.urls:
                for family in text_string_to_metric_families((await http.get(f"{url}/metrics")).text):
                    for sample in family.samples:
                        if sample.name in sums:
                            sums[sample.name] += sample.value
        return sums


def words_of(teacher: Path) -> list[str]:
    """The words that are a token each."""
    vocabulary = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(word for word in vocabulary if word.isalpha())


async def measure(urls: Sequence[str], words: Sequence[str], options: argparse.Namespace) -> dict[str, object]:
    """Every way's figures, per axis and over both, after one cohort that is not counted."""
    settings = EngineSettings(urls=tuple(urls), model="teacher", concurrency=COHORTS_AT_ONCE)
    async with Engine(settings, Metrics()) as engine:
        await engine.prepare([Generation("completion", max_tokens=1)])
        bench = Bench(engine, urls, options.candidates, options.prefix_words, words)
        ways = [Way(first, one) for first in (True, False) for one in (True, False)]
        for way in ways:
            await bench.run(way, 2)
        report: dict[str, object] = {}
        for way in ways:
            print(f"measuring {way.name}", file=sys.stderr)
            tallies, total = await bench.run(way, options.cohorts), Tally()
            for tally in tallies.values():
                total += tally
            report[way.name] = {
                **total.report(),
                "axes": {axis: tally.report() for axis, tally in tallies.items()},
            }
    return report


def main() -> None:
    """Parse the arguments, start the servers, measure, print."""
    parser = argparse.ArgumentParser(
        "preceptor bench prefix", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--teacher", help="directory of a nano teacher (default: trained once)")
    parser.add_argument("--cohorts", type=int, default=16, help="cohorts a way")
    parser.add_argument("--candidates", type=int, default=8, help="candidates a cohort")
    parser.add_argument("--prefix-words", type=int, default=128, help="length of what a cohort shares")
    parser.add_argument(
        "--block-size", type=int, default=32, help="tokens a block of vLLM's cache: the unit of sharing"
    )
    parser.add_argument("--json", action="store_true", help="the figures alone, without a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack() as stack:
        print("starting two teachers", file=sys.stderr)
        teacher, extra = Path(options.teacher or nano_teacher()), ["--block-size", str(options.block_size)]
        servers = [
            stack.launch(vllm_part(teacher, "teacher", Path(folder), name=f"teacher-{number}", extra=extra))
            for number in (1, 2)
        ]
        for server in servers:
            stack.wait_ready(server)
        urls = [server.part.url or "" for server in servers]
        ways = asyncio.run(measure(urls, words_of(teacher), options))
    figures = {
        "benchmark": "prefix",
        "cpus": os.cpu_count(),
        "vllm": vllm_version(find_vllm()),
        "replicas": len(urls),
        "cohorts": options.cohorts,
        "candidates": options.candidates,
        "prefix_words": options.prefix_words,
        "suffix_words": SUFFIX_WORDS,
        "block_size": options.block_size,
        "ways": ways,
    }
    if not options.json:
        for name, way in ways.items():
            assert isinstance(way, dict)
            print(f"{name:24} {way['hit_rate']:7.1%} hits {way['questions_per_s']:8} questions/s")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
