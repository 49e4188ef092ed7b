"""From the results of a study's runs to its tables. Pure; importable without torch.

In: a `Study`, and one record for each run that is done (a line of `<study>.jsonl`):

    {"study", "variant", "seed", "id", "training", "measures": {name: {"value", "ci95"}}, "steps", "flops", "train_s",
     "judge_calls", "teacher": accuracies, "at", "commit", "cpu", "cpus", "memory_gb"}

Out: rows and Markdown. Every figure is computed here; none is written by hand. Means are over seeds, and so are the
intervals (Student's); with one seed the interval is over its held-out windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from preceptor_trainer.evaluation.statistics import Estimate, over_seeds
from preceptor_trainer.planning.show import Table, as_markdown, quantity
from preceptor_trainer.study.definition import BASE, Study

Record = Mapping[str, Any]

WORTH = {
    "quality_wins": "quality, wins over base",
    "wins": "all axes, wins over base",
    "factuality": "factuality",
    "safety": "safety",
    "quality": "quality",
    "repetition": "repeats",
}
LANGUAGE = {
    "nll": "NLL of held-out suffixes",
    "entropy": "entropy",
    "distinct_2": "distinct-2",
    "length": "words",
}
SHOWN = {name: WORTH.get(name, "NLL") for name in ("quality_wins", "factuality", "safety", "nll")}
"""What is drawn."""
JUDGES = {"oracle": "oracle", "judge": "training judge", "second": "second judge"}


@dataclass(frozen=True)
class Row:
    """A variant, and the records of its seeds."""

    name: str
    about: str
    records: Sequence[Record]

    def estimate(self, measure: str) -> Estimate | None:
        """Over the seeds that have it; None if none has."""
        found = [record["measures"][measure] for record in self.records if measure in record["measures"]]
        if len(found) == 1:
            return Estimate(found[0]["value"], *found[0]["ci95"])
        return _over_seeds([each["value"] for each in found])

    def overstated(self, measure: str, rival: str) -> Estimate | None:
        """How much the training judge's figure is above that of `rival`, one of `JUDGES`; paired by seed."""
        pairs = [
            (record["measures"].get(f"judge_{measure}"), record["measures"].get(f"{rival}_{measure}"))
            for record in self.records
        ]
        return _over_seeds([judge["value"] - other["value"] for judge, other in pairs if judge and other])

    def teacher(self, accuracy: str) -> Estimate | None:
        """Of the judge that trained it: a share of held-out labels met."""
        return _over_seeds([record["teacher"][accuracy] for record in self.records])

    def mean(self, figure: str) -> float:
        """Of what each record has beside its measures."""
        return fmean(record[figure] for record in self.records)


def rows(study: Study, records: Sequence[Record]) -> list[Row]:
    """In the order of the definition, the base model first; without those of which nothing is done."""
    made = [
        Row(variant.name, variant.about, [record for record in records if record["variant"] == variant.name])
        for variant in (BASE, *study.variants)
    ]
    return [row for row in made if row.records]


def markdown(study: Study, records: Sequence[Record], *, level: int = 1) -> str:
    """The study's section, `level` deep: what was asked, tables, and on what it ran."""
    found = rows(study, records)
    head = [f"{'#' * level} {study.name}: {study.title}", "", study.question, ""]
    if not found:
        return "\n".join([*head, "Nothing is done yet.", ""])
    independence = [_independence(found, "quality_wins", "quality"), _independence(found, "wins", "all axes")]
    tables = [_worth(found), _language(found), *independence, *_teachers(found)]
    return "\n".join([*head, as_markdown(tables), made(found)])


def _worth(found: Sequence[Row]) -> Table:
    return Table(
        "What the policies are worth, by the oracle (± 95 %)",
        ("", "seeds", *WORTH.values()),
        [(row.about, str(len(row.records)), *(cell(row.estimate(name)) for name in WORTH)) for row in found],
    )


def _language(found: Sequence[Row]) -> Table:
    return Table(
        "What became of their language (nats a token), and what it cost (means over seeds)",
        ("", *LANGUAGE.values(), "steps", "judge calls", "FLOPs", "seconds"),
        [
            (
                row.about,
                *(cell(row.estimate(name)) for name in LANGUAGE),
                *(quantity(row.mean(figure)) for figure in ("steps", "judge_calls", "flops", "train_s")),
            )
            for row in found
        ],
    )


def _independence(found: Sequence[Row], measure: str, on: str) -> Table:
    trained = [row for row in found if row.name != BASE.name]
    return Table(
        f"Who says so: wins over the base model on {on}, and how much the training judge overstates them",
        ("", *JUDGES.values(), "above the oracle", "above the second judge"),
        [
            (
                row.about,
                *(cell(row.estimate(f"{who}_{measure}")) for who in JUDGES),
                *(cell(row.overstated(measure, rival), signed=True) for rival in ("oracle", "second")),
            )
            for row in trained
        ],
    )


def _teachers(found: Sequence[Row]) -> Iterator[Table]:
    """Nothing where all have the same one."""
    trained = [row for row in found if row.name != BASE.name]
    accuracies = [record["teacher"] for row in trained for record in row.records]
    if any(each != accuracies[0] for each in accuracies):
        yield Table(
            "The training judges: share of held-out labels met",
            ("", *(name.replace("_", " ") for name in accuracies[0])),
            [(row.about, *(cell(row.teacher(name)) for name in accuracies[0])) for row in trained],
        )


def _over_seeds(values: Sequence[float]) -> Estimate | None:
    """One seed has no interval; None without any."""
    if len(values) == 1:
        return Estimate(values[0], values[0], values[0])
    return over_seeds(values) if values else None


def cell(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    shown = f"{estimate.value:+.3f}" if signed else f"{estimate.value:.3f}"
    return f"{shown} ±{half:.3f}" if round(half, 3) else shown


def made(found: Sequence[Row]) -> str:
    records = [record for row in found for record in row.records]
    commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(record["commit"] for record in records))
    machines = ", ".join(
        dict.fromkeys(f"{record['cpus']} x {record['cpu']}, {record['memory_gb']} GB" for record in records)
    )
    last = max(record["at"] for record in records)
    # Several runs may measure one policy, each behind another control.
    trainings = {record.get("training") or (record["variant"], record["seed"]): record["train_s"] for record in records}
    hours = sum(trainings.values()) / 3600
    return f"{len(records)} runs, {hours:.1f} hours of training, until {last}, at {commits} on {machines}.\n"
