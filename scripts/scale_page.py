#!/usr/bin/env python3
"""Writes the tables of docs/scale.md, each between `<!-- plan: NAME -->` or `<!-- comparison -->` and `<!-- end -->`.

    .venv/bin/python scripts/scale_page.py [--check]      --check fails if the page is out of date

Every table is what `preceptor plan` says, with what benchmarks/results hold now.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from made import made

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"
_BLOCK = re.compile(r"(<!-- (plan: (?P<name>[\w-]+)|comparison) -->\n).*?(<!-- end -->)", re.DOTALL)
_RUN = ("configs/paper.yaml", "--plan")
_LARGE, _SMALL = "configs/plans/gpt-oss-120b.yaml", "configs/plans/judge-8b.yaml"
_VOTES = "--judge.sampling={votes: 5, temperature: 1.0, top_p: 0.6}"
PLANS: dict[str, tuple[str, ...]] = {
    "large-adaptive": (*_RUN, _LARGE),
    "large-all-pairs": (*_RUN, _LARGE, "--judge.schedule=all_pairs"),
    "small-adaptive": (*_RUN, _SMALL, _VOTES),
    "small-all-pairs": (*_RUN, _SMALL, _VOTES, "--judge.schedule=all_pairs"),
}


def main() -> int:
    sys.path.insert(0, str(ROOT / "trainer"))
    written = PAGE.read_text(encoding="utf-8")
    page = _BLOCK.sub(
        lambda found: found[1] + (_plan(found["name"]) if found["name"] else _comparison()) + found[4], written
    )
    return made({PAGE: page}, by="scripts/scale_page.py", check="--check" in sys.argv[1:])


def _plan(name: str) -> str:
    """The command and its tables."""
    shown = " ".join(f"'{each}'" if " " in each else each for each in PLANS[name])
    return f"```\npreceptor plan {shown}\n```\n\n{_asked(name, '--markdown')}"


def _comparison() -> str:
    """All plans side by side."""
    from preceptor_trainer.planning.show import Table, as_markdown, quantity

    plans: dict[str, dict[str, Any]] = {name: json.loads(_asked(name, "--json")) for name in PLANS}
    rows = []
    for name, plan in plans.items():
        judging = next(stage for stage in plan["stages"] if stage["name"] == "judging")
        gpus = [str(pool["gpus"]) for pool in plan["pools"]]
        figures = (judging["calls"], judging["sent"], judging["computed"], judging["written"], judging["gpu_seconds"])
        rows.append(
            (
                name,
                *map(quantity, figures),
                " + ".join(gpus),
                *map(quantity, (plan["step_seconds"], plan["hours"], plan["gpu_hours"])),
            )
        )
    pools = " + ".join(pool["name"] for pool in plans[next(iter(plans))]["pools"])
    columns = (
        "plan",
        "calls a step",
        "prompt tokens",
        "computed",
        "written",
        "GPU-seconds of judging",
        f"GPUs: {pools}",
        "seconds a step",
        "hours",
        "GPU-hours",
    )
    return as_markdown([Table("Judging, and the run", columns, rows)])


@cache
def _asked(name: str, form: str) -> str:
    command = [sys.executable, "-m", "preceptor_trainer", "plan", *PLANS[name], form]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
