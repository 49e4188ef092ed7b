"""The demo's report: `report.json`, `report.md`, `samples.jsonl` and pictures, from what was measured.

In: the comparison by the oracle, the generations, the runs' own metrics and the teacher's accuracy. Out: files in the
report folder, and tables for the terminal. Every figure is computed here from those; none is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from preceptor_trainer.demo.plots import plot_axes, plot_origins, plot_training
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.nano import AXES, Comparison
from preceptor_trainer.evaluation.statistics import Estimate
from preceptor_trainer.nano.teacher import TeacherAccuracy

MODELS = {"base": "base", "nll": "next-token", "sip": "SIP"}
"""`nll` goes on from the base model by next-token prediction on the same windows as `sip`."""
_ORIGINS = ("original", "rewrite", "rollout")
_SPANS = 10
_SHOWN = 6


@dataclass(frozen=True)
class Findings:
    """All that a report is made of. `metrics` and `summary` are those of the SIP run."""

    accuracy: TeacherAccuracy
    comparison: Comparison
    generations: Mapping[str, Sequence[Generation]]
    metrics: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    wall_s: float
    stages_s: Mapping[str, float]

    def axis(self, axis: str) -> dict[str, Estimate]:
        """Each model's estimate on an axis."""
        return {model: self.comparison.axis(model, axis) for model in MODELS}


def origin_shares(metrics: Sequence[Mapping[str, Any]], spans: int = _SPANS) -> list[dict[str, float]]:
    """Whose candidate was chosen, as shares of each of `spans` equal parts of the run; `step` is a part's last one."""
    size = max(1, len(metrics) // spans)
    shares = []
    for start in range(0, len(metrics), size):
        part = metrics[start : start + size]
        counts = {origin: sum(line["chosen"].get(origin, 0) for line in part) for origin in _ORIGINS}
        total = sum(counts.values())
        if total:
            shares.append({"step": part[-1]["step"], **{name: count / total for name, count in counts.items()}})
    return shares


def to_json(findings: Findings) -> dict[str, Any]:
    """`report.json`."""
    comparison = findings.comparison
    accuracy = findings.accuracy
    judge = findings.summary["judge"]
    axes = {}
    for axis in AXES:
        of_models, gain = findings.axis(axis), comparison.gain("sip", "nll", axis)
        axes[axis] = {
            **{model: round(estimate.value, 4) for model, estimate in of_models.items()},
            "relative_gain": round(gain.value, 4),
            "ci95": {
                **{model: estimate.to_json()["ci95"] for model, estimate in of_models.items()},
                "relative_gain": gain.to_json()["ci95"],
            },
        }
    return {
        "wall_s": round(findings.wall_s, 1),
        "stages_s": {stage: round(seconds, 1) for stage, seconds in findings.stages_s.items()},
        "held_out_prefixes": len(findings.generations["sip"]),
        "teacher": {
            **{axis: {"accuracy": round(getattr(accuracy, axis), 4)} for axis in AXES},
            "copies": round(accuracy.copies, 4),
            "position_consistency": round(accuracy.position_consistency, 4),
        },
        "axes": axes,
        "repetition": {model: comparison.axis(model, "repetition").to_json() for model in MODELS},
        "win_rate_vs_nll": comparison.wins("sip", "nll").to_json(),
        "win_rate_vs_base": comparison.wins("sip", "base").to_json(),
        "origin_share": origin_shares(findings.metrics),
        "judge": {key: judge[key] for key in ("calls", "abstained", "failed", "tokens", "verdicts", "cohorts")},
    }


def results_table(findings: Findings) -> Table:
    """The table that the demo ends with."""
    table = Table(title="Measured by the oracle on held-out prefixes (± 95 %)", box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("", min_width=max(map(len, MODELS.values())))
    for header in (*AXES, "vs base", "vs next-token", "repeats"):
        table.add_column(header, justify="right", min_width=max(map(len, header.split())))
    for model, label in MODELS.items():
        wins = [findings.comparison.wins(model, rival) if model != rival else None for rival in ("base", "nll")]
        cells = [
            *(str(findings.comparison.axis(model, axis)) for axis in AXES),
            *(str(win) if win else "-" for win in wins),
        ]
        table.add_row(label, *cells, f"{findings.comparison.axis(model, 'repetition').value:.3f}")
    gains = [findings.comparison.gain("sip", "nll", axis) for axis in AXES]
    table.add_row("SIP over next-token", *(f"{gain.value:+.1%}" for gain in gains), "", "", "", style="bold")
    return table


def teacher_table(accuracy: TeacherAccuracy) -> Table:
    """What the teacher is worth."""
    table = Table(title="The teacher on held-out labels")
    for name in (*AXES, "good suffixes copied", "position consistency"):
        table.add_column(name, justify="right")
    figures = [*(getattr(accuracy, axis) for axis in AXES), accuracy.copies, accuracy.position_consistency]
    table.add_row(*(f"{figure:.1%}" for figure in figures))
    return table


def samples_table(findings: Findings, count: int = 4) -> Table:
    """Held-out prefixes with what each model wrote."""
    table = Table("prefix", *MODELS.values(), title="Samples", show_lines=True)
    for index in range(min(count, len(findings.generations["sip"]))):
        texts = [findings.generations[model][index].text for model in MODELS]
        table.add_row(findings.generations["sip"][index].prefix, *texts)
    return table


def write_report(folder: Path, findings: Findings) -> Path:
    """Writes every file and returns the path of `report.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(to_json(findings), indent=2) + "\n", encoding="utf-8")
    plot_axes(folder / "axes.png", {axis: findings.axis(axis) for axis in AXES})
    plot_training(folder / "training.png", findings.metrics)
    plot_origins(folder / "origins.png", origin_shares(findings.metrics))
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for index, generation in enumerate(findings.generations["sip"]):
            texts = {model: findings.generations[model][index].text for model in MODELS}
            line = {"prefix": generation.prefix, "original": generation.original, **texts}
            file.write(json.dumps(line) + "\n")
    tables = (teacher_table(findings.accuracy), results_table(findings), samples_table(findings, _SHOWN))
    sections = ["# Self-Improving Pretraining on the nano world\n", *map(_markdown, tables)]
    sections += [f"![{name}]({name}.png)\n" for name in ("axes", "training", "origins")]
    report = folder / "report.md"
    report.write_text("\n".join(sections), encoding="utf-8")
    return report


def _markdown(table: Table) -> str:
    """A rich table as a Markdown one."""
    columns = [list(column.cells) for column in table.columns]
    header = [str(column.header) or " " for column in table.columns]
    rows = [header, ["---"] * len(header), *(list(map(str, row)) for row in zip(*columns, strict=True))]
    return f"## {table.title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def show(console: Console, findings: Findings) -> None:
    """The report on the terminal."""
    for table in (teacher_table(findings.accuracy), samples_table(findings), results_table(findings)):
        console.print(table)
