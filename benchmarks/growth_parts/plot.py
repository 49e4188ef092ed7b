"""The curves as one picture, on logarithmic axes. The same result gives the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_COLUMNS = 3
_UNITS = {"s": "seconds", "MB": "MB", "calls": "calls", "cohorts/s": "cohorts a second"}


def save_plot(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel for each kind of size and unit."""
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for curve in curves:
        panels.setdefault((curve["against"], curve["unit"]), []).append(curve)
    rows = -(-len(panels) // _COLUMNS)
    with mpl.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(4 * _COLUMNS, 3 * rows), layout="constrained")
        axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axis, ((against, unit), members) in zip(axes, panels.items(), strict=False):
            for curve in members:
                label = f"{curve['part']}: {curve['exponent']:.2f} ± {curve['error']:.2f}"
                axis.loglog(curve["sizes"], curve["values"], marker="o", markersize=3, label=label)
            axis.set_xlabel(against)
            axis.set_ylabel(_UNITS[unit])
            axis.legend(fontsize=6)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
