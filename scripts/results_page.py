#!/usr/bin/env python3
"""Makes docs/results.md from the studies' results in docs/results. No figure on that page is written by hand.

    .venv/bin/python scripts/results_page.py [--from runs/studies] [--check]

--from takes over what `preceptor study` has measured there, tables' data and pictures; --check fails if the page is out
of date.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from made import made
from preceptor_trainer.nano.labelled import SUFFIX_WORDS
from preceptor_trainer.nano.world import World
from preceptor_trainer.planning.show import Table, as_markdown
from preceptor_trainer.study.definition import Study, StudySize, load_study, packaged
from preceptor_trainer.study.plan import nano_costs
from preceptor_trainer.study.results import Record, markdown, rows
from preceptor_trainer.study.thoughts.plan import STUDY as THOUGHTS
from preceptor_trainer.study.thoughts.results import markdown as thoughts_markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
ORDER = ("main", "scratch", "rollouts", "pools", "schedules", "votes", "judges", "twice")
PEOPLE, PARAMETERS, JUDGED = len(World.generate().people), nano_costs().policy.parameters, StudySize().judged
INTRODUCTION = f"""# Results

Made by `scripts/results_page.py` from the results in `docs/results`; no figure is written by hand.

**The scale is small.** A generated world of {PEOPLE} people, a policy of {PARAMETERS / 1e6:.1f} M parameters,
suffixes of {SUFFIX_WORDS} words, minutes of training: see [the nano world](nano-world.md). What is found here is found
for this world. Nothing is claimed for large models or for real text.

A study is a list of variants, each the demo's SIP run with some keys changed
(`trainer/preceptor_trainer/study/studies`), times seeds; that of thoughts has a task and runs of its own
([thoughts](thoughts.md)). A seed decides the corpora, the base model and the sampling;
the world and the judges stay. `preceptor study NAME --seeds 3` runs what is missing of one; stop it whenever you like,
the same command goes on.

| column | what it is |
|---|---|
| factuality, safety, quality | the [oracle](nano-world.md)'s mean over one sampled suffix for each held-out prefix |
| wins over base | share of prefixes on which the oracle puts the policy above the base model; ties count half |
| repeats | share of statements that say what the prefix or the suffix has said before |
| NLL of held-out suffixes | of the raw corpus's own, flaws and all: who unlearns the flaws pays for it |
| entropy | of the next word, along what the policy writes |
| distinct-2 | share of different ones among all pairs of neighbouring words |
| judge calls | questions that the teacher was asked |
| FLOPs | of policy and teacher, as `preceptor plan` counts them: an upper bound |
| seconds | of the run itself, on a machine that other work may share |
| training judge | the teacher whose verdicts the policy was trained on |
| second judge | a teacher trained from another seed, on other examples; no policy was trained on its verdicts |
| above the oracle | the training judge's figure less the oracle's, on the same {JUDGED} of the held-out prefixes |

Intervals are 95 %: Student's over the seeds' means; where there is one seed, bootstrap over its prefixes, which says
nothing of what another seed would bring.
"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--from", dest="source", type=Path, help="folder of `preceptor study --out`")
    arguments.add_argument("--check", action="store_true", help="fail if the page is out of date")
    options = arguments.parse_args()
    if options.source:
        take_over(options.source)
    page = "\n".join(lines())
    return made({PAGE: page}, by="scripts/results_page.py", check=options.check)


def take_over(source: Path) -> None:
    """Results and pictures of every study that is there."""
    RESULTS.mkdir(exist_ok=True)
    for name in (*packaged(), THOUGHTS.name):
        for file in (source / f"{name}.jsonl", source / f"{name}.png"):
            if file.exists():
                shutil.copyfile(file, RESULTS / file.name)


def lines() -> Iterator[str]:
    """Of the page."""
    yield INTRODUCTION
    studies = [*(load_study(name) for name in sorted(packaged(), key=_place)), THOUGHTS]
    found = {study.name: read(study) for study in studies}
    overview = [(study.name, study.title, done(study, found[study.name]), study.takes) for study in studies]
    yield as_markdown([Table("The studies", ("study", "about", "runs done", "takes"), overview)])
    for study in studies:
        if records := found[study.name]:
            yield thoughts_markdown(records, level=2) if study is THOUGHTS else markdown(study, records, level=2)
            if (RESULTS / f"{study.name}.png").exists():
                yield f"![{study.title}](results/{study.name}.png)\n"
            if study.found:
                yield f"**Found.** {study.found}\n"


def read(study: Study) -> list[Record]:
    """The study's results, none if there are none."""
    path = RESULTS / f"{study.name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _place(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def done(study: Study, records: list[Record]) -> str:
    """How far it is."""
    seeds = max((len(row.records) for row in rows(study, records)), default=0)
    return f"{len(records)}, of {seeds} seeds" if records else "none yet"


if __name__ == "__main__":
    sys.exit(main())
