"""What a dashboard is made of, and the queries that most panels need.

In: titles, units, PromQL. Out: data, which scripts/grafana_dashboards.py draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat"]
Query = tuple[str, str]
"""PromQL, and the legend of its series."""

SHARE, SECONDS, BYTES, COUNT = "percentunit", "s", "bytes", "short"
PER_SECOND, TOKENS_PER_SECOND, UPDATES = "ops", "suffix: tok/s", "suffix: updates"


@dataclass(frozen=True)
class Panel:
    """`about` says how to read it; `width` is in 24ths of the page."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str
    kind: Kind
    stacked: bool
    width: int


@dataclass(frozen=True)
class Dashboard:
    """`variables` are (name, query of its values): panels show the series of the values that are chosen."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str], ...] = ()


def panel(
    title: str,
    unit: str,
    *queries: Query,
    about: str = "",
    kind: Kind = "timeseries",
    stacked: bool = False,
    width: int = 8,
) -> Panel:
    """A third of a line unless `width` says otherwise."""
    return Panel(title, unit, queries, about, kind, stacked, width)


def rate(counter: str, by: str, where: str = "") -> str:
    """Per second, summed over everything but `by`."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[$__rate_interval]))"


def mean(histogram: str, by: str, where: str = "") -> str:
    """Of what was observed."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(q: float, histogram: str, by: str, where: str = "") -> str:
    """Of what was observed."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'{by}, le', where)})"


def share(counter: str, by: str, part: str, whole: str = "") -> str:
    """Of the events that the matchers `whole` choose, those that `part` does."""
    return f"{rate(counter, by, part)} / {rate(counter, by, whole)}"
