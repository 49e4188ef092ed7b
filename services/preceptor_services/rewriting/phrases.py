"""The expressions of `phrases.yaml`, compiled. Reads that file when imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_SOURCE: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_PIECE = re.compile(r"<([a-z]+)>")


def _expressions(text: str) -> Iterator[str]:
    """The lines of `text` that are no comments, with those joined that are indented to go on."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return filter(None, re.sub(r"\n +", "", lines).split("\n"))


def _with_pieces(expression: str) -> str:
    pieces: dict[str, str] = _SOURCE["pieces"]
    while _PIECE.search(expression):
        expression = _PIECE.sub(lambda piece: "".join(_expressions(pieces[piece[1]])), expression)
    return expression.replace(" ?", r"\s*").replace(" ", r"\s+").replace("'", "['’]")


def _compiled(section: str) -> re.Pattern[str]:
    return re.compile("|".join(map(_with_pieces, _expressions(_SOURCE[section]))), re.IGNORECASE)


DECLINES, BREAKS_OFF, OPENS, REMARKS = map(_compiled, ("declines", "breaks_off", "opens", "remarks"))
