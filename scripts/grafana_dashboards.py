#!/usr/bin/env python3
"""Writes the Grafana dashboards in deploy/grafana/dashboards: training, judging, queue.

    .venv/bin/python scripts/grafana_dashboards.py [--check]      --check fails if the files are out of date

What is on them is in scripts/dashboards; where a panel stands and how it looks is decided here, once for all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dashboards.judging import JUDGING
from dashboards.panels import Dashboard, Panel
from dashboards.queueing import QUEUE
from dashboards.training import TRAINING
from made import made

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"

_SCHEMA = 39  # of Grafana 10.4 and newer
_COLUMNS, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

DASHBOARDS = (TRAINING, JUDGING, QUEUE)


def main() -> int:
    written = {FOLDER / f"{each.uid.removeprefix('preceptor-')}.json": as_json(each) for each in DASHBOARDS}
    return made(
        written, by="scripts/grafana_dashboards.py", check="--check" in sys.argv[1:], others=FOLDER.glob("*.json")
    )


def as_json(dashboard: Dashboard) -> str:
    """What Grafana reads."""
    source = {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}
    chosen = [
        {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # whenever the time range changes: instances come and go
            "includeAll": True,
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }
        for name, query in dashboard.variables
    ]
    made = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["preceptor"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *chosen]},
        "links": [{"type": "dashboards", "title": "Preceptor", "tags": ["preceptor"], "keepTime": True}],
        "panels": list(_placed(dashboard.rows)),
    }
    return json.dumps(made, indent=2) + "\n"


def _placed(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Iterator[dict[str, Any]]:
    """Row by row, from left to right, in lines of `_COLUMNS`."""
    id, y = 0, 0
    for title, panels in rows:
        id += 1
        yield {"id": id, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _at(0, y, 24, 1)}
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + _HEIGHT
            id += 1
            yield {"id": id, "gridPos": _at(x, y, panel.width, _HEIGHT), **_drawn(panel)}
            x += panel.width
        y += _HEIGHT


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _drawn(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
    series = panel.kind == "timeseries"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **({"custom": custom} if series else {})}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if series
        else {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for number, (expr, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
