"""From what the teacher wrote to a verdict's label, or None. Pure; never guesses.

In: an answer and the rubric's labels. Out: exactly one of the labels, or None when the place where the verdict
belongs does not hold one. Only that place is read: a label anywhere else in the answer (a quoted candidate, say)
counts for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Literal

Parser = Literal["exact", "final_line", "json"]
"""Where the verdict belongs: the whole answer; the last line, as `Verdict: LABEL`; the field `verdict` of one JSON
object."""

_END_OF_THOUGHT = "</think>"
_FINAL_LINE = re.compile(r"(?:\*\*)?verdict\s*:\s*(?:\*\*)?\s*(?P<label>[^*]+?)\s*\.?(?:\*\*)?", re.IGNORECASE)
_CODE_BLOCK = re.compile(r"```(?:json)?\s*\n(?P<body>.*)\n\s*```", re.DOTALL)


def parse(parser: Parser, answer: str, labels: Collection[str]) -> str | None:
    """The label that `answer` gives, read the way `parser` says. Case does not matter, except to `exact`."""
    answer = answer.rpartition(_END_OF_THOUGHT)[2].strip()
    if parser == "exact":
        return answer if answer in labels else None
    found = _in_final_line(answer) if parser == "final_line" else _in_json(answer)
    if found is None:
        return None
    matching = [label for label in labels if label.casefold() == found.casefold()]
    return matching[0] if len(matching) == 1 else None


def _in_final_line(answer: str) -> str | None:
    lines = answer.splitlines()
    match = _FINAL_LINE.fullmatch(lines[-1].strip()) if lines else None
    return match["label"] if match else None


def _in_json(answer: str) -> str | None:
    block = _CODE_BLOCK.fullmatch(answer)
    try:
        fields = json.loads(block["body"] if block else answer, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    verdict = fields.get("verdict") if isinstance(fields, dict) else None
    return verdict.strip() if isinstance(verdict, str) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one with a repeated key names two verdicts and is refused."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields
