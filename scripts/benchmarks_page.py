#!/usr/bin/env python3
"""Makes docs/benchmarks.md from the results in benchmarks/results. No figure on that page is written by hand.

    .venv/bin/python scripts/benchmarks_page.py [--check]      --check fails if the page is out of date

Of each result: the docstring of its benchmark (what, how, against which limit), goals, tables, and on what it ran.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from made import made

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
ORDER = (
    "shared-prefix",
    "overlap",
    "staleness",
    "judge",
    "gateway",
    "queue",
    "rollouts",
    "weight-sync",
    "scale",
    "growth",
)
_MET = {True: "yes", False: "**no**"}
INTRODUCTION = """# Benchmarks

Made by `scripts/benchmarks_page.py` from `benchmarks/results`; no figure is written by hand. Each benchmark is one file
under `benchmarks/`, run by `preceptor bench NAME --json`, and measures all sides in one run on one machine, in turn,
medians of several rounds; `--save` keeps the result for this page. Goals that were missed are here as well.
"""


def main() -> int:
    page = "\n".join(lines())
    return made({PAGE: page}, by="scripts/benchmarks_page.py", check="--check" in sys.argv[1:])


def lines() -> Iterator[str]:
    """Of the page."""
    yield INTRODUCTION
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    for name in [*(name for name in ORDER if name in results), *sorted(results.keys() - set(ORDER))]:
        yield from section(name, results[name])


def section(name: str, result: dict[str, Any]) -> Iterator[str]:
    """What one benchmark found."""
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    title, _, method = (module.__doc__ or "").partition("\n")
    yield f"## {name}: {title.rstrip('.')}\n"
    yield method.strip("\n") + "\n"
    if result["goals"]:
        rows = [
            (goal["figure"], number(goal["measured"]), f"{goal['relation']} {goal['bound']:g}", _MET[goal["met"]])
            for goal in result["goals"]
        ]
        yield from table(("figure", "measured", "goal", "met"), rows)
    for each in module.tables(result):
        yield f"{each.title}\n"
        yield from table(each.columns, [[number(cell) for cell in row] for row in each.rows])
    measured, versions = result["measured"], result["versions"]
    yield (
        f"Measured {measured['at']} at `{measured['commit']}` on {measured['cpus']} x {measured['cpu']}, "
        f"{measured['memory_gb']} GB{', ' + measured['device'] if 'device' in measured else ''}: "
        f"{', '.join(f'{package} {version}' for package, version in versions.items())}.\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """In Markdown."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    yield ""


def number(value: object) -> str:
    """Three significant digits, and no exponent where a reader would stumble over one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
