"""A study's picture, as PNG: each variant a line, its worth with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from preceptor_trainer.study.results import Row

_OF_BASE = "#9aa5b1"
_OF_OTHERS = "#2f7dbd"


def plot_study(path: Path, found: Sequence[Row], shown: Mapping[str, str]) -> None:
    """The rows from top to bottom, a panel for each measure `shown` (its name -> what it is called); the dotted line is
    the base model's."""
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 1.2 + 0.32 * len(found)), sharey=True, layout="constrained")
    places = range(len(found))
    for panel, (measure, label) in zip(axes, shown.items(), strict=True):
        for place, row in zip(places, found, strict=True):
            if estimate := row.estimate(measure):
                spread = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
                colour = _OF_BASE if row.name == "base" else _OF_OTHERS
                panel.errorbar(estimate.value, place, xerr=spread, fmt="o", color=colour, capsize=3, markersize=4)
                if row.name == "base":
                    panel.axvline(estimate.value, color=_OF_BASE, linestyle=":", linewidth=1)
        panel.set_xlabel(label)
    axes[0].set_yticks(places, [row.about for row in found])
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)
    plt.close(figure)
