#!/usr/bin/env python3
"""Writes the tables of metrics in docs/observability.md, each between `<!-- metrics: PART -->` and `<!-- end -->`.

    .venv/bin/python scripts/metrics_page.py [--check]      --check fails if the page is out of date

The tables are of what the services and the trainer register. The values of a label are read from the series that are
there from the start; where they come with use, they are in `VALUES`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from made import made

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "observability.md"
_BLOCK = re.compile(r"(<!-- metrics: (?P<part>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

VALUES = {
    "action": "warn, pause, stop, clear",
    "axis": "axes of the rubrics, other (trainer: axes of the run)",
    "caller": "names in the keys file, anonymous",
    "code": "HTTP status",
    "engine": "torch, vllm",
    "finding": "usable, empty, marker, declined, talk, copied, looping, length, strayed",
    "guard": "held_out_nll, entropy, length, repetition, discrimination, abstention",
    "objective": "dpo, rf_nll, grpo, nll",
    "origin": "original, rewrite, rollout, all",
    "preceptor_engine_circuit": "closed, half_open, open",
    "replica": "host:port of the servers in engine.urls",
    "route": "the service's routes, other",
    "run": "the run's name, one a process",
    "rung": "constrained, strict, tolerant, abstain",
    "state": "waiting, in_flight, answered, dead",
    "status": "ok, abstained, failed",
}


@dataclass(frozen=True)
class Family:
    """A metric as it is scraped: counters end in `_total`, histograms have `_bucket`, `_sum` and `_count`."""

    name: str
    kind: str
    help: str
    labels: dict[str, frozenset[str]]
    """With the values of each that are there from the start."""

    @property
    def names(self) -> frozenset[str]:
        """Of its series."""
        endings = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return frozenset(self.name + ending for ending in endings)


def families(metrics: object) -> Iterator[Family]:
    """What a `Metrics` has registered, in its order."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.collect()
            names: tuple[str, ...] = metric._labelnames
            if family.type == "info":
                names = tuple(family.samples[0].labels)
            elif family.type == "stateset":
                names = (*names, family.name)
            values = {name: frozenset(s.labels[name] for s in family.samples if name in s.labels) for name in names}
            ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
            yield Family(family.name + ending, family.type, family.documentation, values)


def services() -> list[Family]:
    """Of judge, rewrite and worker, which share one set."""
    from preceptor_services.metrics import Metrics

    return list(families(Metrics()))


def trainer() -> list[Family]:
    """Of a run."""
    from preceptor_trainer.config import TrainConfig
    from preceptor_trainer.metrics import Metrics

    values = {
        "out": "out",
        "steps": 1,
        "model": {"path": "policy"},
        "data": {"path": "documents"},
        "pool": {"rollouts": 1},
    }
    return list(families(Metrics.of(TrainConfig.model_validate(values))))


def table(found: list[Family]) -> str:
    """In Markdown."""
    lines = ["| metric | labels | |", "|---|---|---|"]
    for each in found:
        labels = "; ".join(f"`{label}`: {_values(each, label)}" for label in each.labels)
        lines.append(f"| `{each.name}` ({each.kind}) | {labels} | {each.help} |")
    return "\n".join(lines) + "\n"


def _values(family: Family, label: str) -> str:
    known = family.labels[label]
    return VALUES[label] if not known or family.kind == "info" else ", ".join(sorted(known))


def main() -> int:
    written = PAGE.read_text(encoding="utf-8")
    parts = {"services": services, "trainer": trainer}
    page = _BLOCK.sub(lambda found: found[1] + table(parts[found["part"]]()) + found[3], written)
    return made({PAGE: page}, by="scripts/metrics_page.py", check="--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
