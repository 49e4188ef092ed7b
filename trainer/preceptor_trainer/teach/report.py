"""What teaching brought: the same exam before and after. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from preceptor_trainer.teach.course import Marks


def to_json(course: str, before: Marks, after: Marks, about: Mapping[str, Any]) -> dict[str, Any]:
    """`{"course": ..., ..., "before": {mark: {"value", "ci95"}}, "after": ...}`."""
    exams = {"before": before, "after": after}
    return {
        "course": course,
        **about,
        **{when: {name: mark.to_json() for name, mark in marks.items()} for when, marks in exams.items()},
    }


def table(course: str, before: Marks, after: Marks) -> Table:
    """For a terminal."""
    made = Table(title=f"{course}, on held-out exercises, with 95 % intervals")
    made.add_column("", justify="left")
    for name in ("before", "after"):
        made.add_column(name, justify="right")
    for name in dict.fromkeys([*before, *after]):
        made.add_row(name, *(str(marks[name]) if name in marks else "-" for marks in (before, after)))
    return made
