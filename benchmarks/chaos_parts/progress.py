"""How far the runs have come, seen from outside: the files of the trainer, the metrics of the services."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx


class Watch:
    """How much `count` has grown since now. A trainer that resumes cuts its files first: what it cut does not count."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self.least = count()

    def grown(self) -> int:
        """Call it often: growth is measured from the least it has seen."""
        now = self._count()
        self.least = min(self.least, now)
        return now - self.least


def count(path: Path, what: bytes) -> int:
    """How often `what` stands in a file that may be growing; not at all before it is there."""
    return path.read_bytes().count(what) if path.exists() else 0


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that may be growing; none before it is there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def gauge(url: str, name: str) -> float:
    """The sum of a gauge at `url`/metrics; 0 if it is not to be had."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=2, trust_env=False).text
    except httpx.HTTPError:
        return 0.0
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))
