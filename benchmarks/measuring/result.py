"""What a benchmark leaves behind: one JSON object as the last line of its output, and the same as a file.

    result = Result("queue", figures, goals)       figures: anything JSON, sizes and settings among them
    finish(result, options)                        prints, and with --save writes benchmarks/results/queue.json

docs/benchmarks.md is made from these files by scripts/benchmarks_page.py: of each, the benchmark's docstring, its
goals, and the tables that its function `tables` makes of the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from preceptor_trainer.machine import commit, machine

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Goal:
    """A figure, and what it should be: at least (`>=`) or at most (`<=`) `bound`."""

    figure: str
    measured: float
    relation: str
    bound: float

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.relation == ">=" else self.measured <= self.bound


@dataclass(frozen=True)
class Table:
    """Rows of figures under a title. Numbers are shown with three significant digits."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Result:
    """`packages` are those whose versions matter; `also` has versions that this environment does not know of."""

    benchmark: str
    figures: dict[str, Any]
    goals: Sequence[Goal] = ()
    packages: Sequence[str] = ("torch", "transformers")
    also: dict[str, str] = field(default_factory=dict)


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """With what every benchmark takes."""
    made = argparse.ArgumentParser(f"preceptor bench {name}", description=(doc or "").partition("\n")[0])
    made.add_argument("--json", action="store_true", help="nothing on standard output but the JSON object")
    made.add_argument("--save", action="store_true", help="keep the result for docs/benchmarks.md")
    return made


def finish(result: Result, options: argparse.Namespace) -> None:
    """Print the goals, unless `--json`, and the JSON object; write it if `--save`."""
    whole = {
        "benchmark": result.benchmark,
        **_rounded(result.figures),
        "goals": [{**_rounded(asdict(goal)), "met": goal.met} for goal in result.goals],
        "measured": {"at": time.strftime("%Y-%m-%d"), "commit": commit(), **machine()},
        "versions": {"python": platform.python_version(), **_versions(result.packages), **result.also},
    }
    if not options.json:
        for goal in result.goals:
            verdict = "met" if goal.met else "MISSED"
            print(f"{goal.figure}: {goal.measured:.3g} ({verdict}: {goal.relation} {goal.bound:g})")
    line = json.dumps(whole)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{result.benchmark}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(line)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    """Four significant digits are more than a benchmark knows."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
