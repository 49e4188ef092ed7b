"""What a PromQL expression looks at, read from its text; that it is one is for promtool to say."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRINGS = re.compile(r'"[^"]*"')
_IN_BRACKETS = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"[a-zA-Z_:][\w:]*\b(?!\s*\()")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = {"and", "or", "unless", "bool"}


@dataclass(frozen=True)
class Matcher:
    """`metric{label<operator>"value"}`."""

    metric: str
    label: str
    operator: str
    value: str


def metrics_in(expression: str) -> set[str]:
    """Names of the series."""
    bare = _GROUPING.sub("", _IN_BRACKETS.sub("", _STRINGS.sub('""', expression)))
    return set(_NAME.findall(bare)) - _WORDS


def matchers_in(expression: str) -> list[Matcher]:
    """Of all selectors."""
    return [
        Matcher(metric, *found)
        for metric, matchers in _SELECTOR.findall(expression)
        for found in _MATCHER.findall(matchers)
    ]


def grouped_by(expression: str) -> set[str]:
    """Labels in `by` and the like."""
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()}
