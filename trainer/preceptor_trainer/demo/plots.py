"""The demo's pictures, as PNG: what was gained on each axis, how the scores rose, and whose candidates were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from preceptor_trainer.evaluation.nano import AXES
from preceptor_trainer.evaluation.statistics import Estimate

_COLOURS = {"base": "#9aa5b1", "nll": "#e6a04c", "sip": "#2f7dbd"}
_SMOOTHED = 15
"""Steps of the running mean."""
_LABELS = {"base": "base", "nll": "next-token", "sip": "SIP"}


def plot_axes(path: Path, estimates: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Bars with 95 % intervals: `estimates[axis][model]`."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    width = 0.26
    for place, (model, label) in enumerate(_LABELS.items()):
        of_model = [estimates[axis][model] for axis in AXES]
        axes.bar(
            [index + (place - 1) * width for index in range(len(AXES))],
            [e.value for e in of_model],
            width,
            yerr=[[e.value - e.low for e in of_model], [e.high - e.value for e in of_model]],
            capsize=3,
            color=_COLOURS[model],
            label=label,
        )
    axes.set_xticks(range(len(AXES)), AXES)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("oracle, held-out prefixes")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, path)


def plot_training(path: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """The judge's mean score of the policy's rollouts on each axis, by step: each step, and a running mean."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for axis in AXES:
        scored = [line for line in metrics if "rollout" in line["scores"].get(axis, {})]
        steps = [line["step"] for line in scored]
        scores = [line["scores"][axis]["rollout"] for line in scored]
        means = [fmean(scores[max(0, i + 1 - _SMOOTHED) : i + 1]) for i in range(len(scores))]
        (line_of_means,) = axes.plot(steps, means, label=axis)
        axes.plot(steps, scores, color=line_of_means.get_color(), alpha=0.2, linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("judge's score of the rollouts")
    axes.set_ylim(0, 1.05)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, path)


def plot_origins(path: Path, shares: Sequence[Mapping[str, float]]) -> None:
    """Whose candidate was chosen, as shares, over time."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    origins = ("original", "rewrite", "rollout")
    axes.stackplot(
        [share["step"] for share in shares],
        [[share[origin] for share in shares] for origin in origins],
        labels=origins,
        colors=("#9aa5b1", "#e6a04c", "#2f7dbd"),
    )
    axes.set_xlabel("step")
    axes.set_ylabel("share of the chosen candidates")
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
