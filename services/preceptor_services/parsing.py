"""From what the teacher wrote to a verdict, or none. Pure; never guesses.

    constrained -> strict -> tolerant -> abstain

In: an answer, where in it the verdict belongs, and the verdicts there are. Out: a `Reading` (one label) or an
`OrderReading` (all candidates, best first), with the rung of the ladder that it was read on:
  - constrained: decoding was bound to the form, and the form is there;
  - strict: the form is there as the prompt asked for it;
  - tolerant: the form is not quite there (a code block, single quotes, a trailing comma, `Answer: A`), but the answer
    ends in one verdict, names no other verdict anywhere, and does not quote;
  - abstain: anything else.

Guarantees: what is read stands where the answer ends; a verdict anywhere else (in a quoted candidate, say) is never
read, and on the tolerant rung it forbids reading at all. An answer that ran into its length limit may end in the middle
of a quotation, so of such an answer only a bare label counts. Raises nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeVar

from preceptor_client.contract import Parser

MAX_RATIONALE_CHARS = 2_000


class Rung(StrEnum):
    """How a verdict was read, from the surest way to none."""

    CONSTRAINED = "constrained"
    STRICT = "strict"
    TOLERANT = "tolerant"
    ABSTAIN = "abstain"


@dataclass(frozen=True)
class Reading:
    """The label that an answer gives; None exactly when the rung is `abstain`."""

    label: str | None
    rung: Rung
    rationale: str | None = None
    """What the teacher wrote before its verdict."""


@dataclass(frozen=True)
class OrderReading:
    """The order that an answer gives: candidates by place in the prompt, counted from 0, best first. None exactly when
    the rung is `abstain`."""

    order: tuple[int, ...] | None
    rung: Rung
    rationale: str | None = None


def read(
    parser: Parser,
    answer: str,
    labels: Collection[str],
    *,
    constrained: bool = False,
    cut_off: bool = False,
    texts: Collection[str] = (),
) -> Reading:
    """The label that `answer` gives. `cut_off`: it ran into its length limit. `texts`: those that were judged, as the
    prompt showed them; a sloppy verdict that stands in one of them is taken for a quotation."""
    return Reading(*_read(_form_of(parser, tuple(labels)), answer, constrained, cut_off, texts))


def read_order(
    parser: Parser,
    answer: str,
    count: int,
    *,
    constrained: bool = False,
    cut_off: bool = False,
    texts: Collection[str] = (),
) -> OrderReading:
    """The order of all `count` candidates that `answer` gives: `2 > 1 > 3`, or a JSON list. See `read`."""

    def order_of(value: Any) -> tuple[int, ...] | None:
        numbers = re.split(r"[>,\s]+", value.strip("[]")) if isinstance(value, str) else value
        if not isinstance(numbers, list) or sorted(map(str, numbers)) != sorted(map(str, range(1, count + 1))):
            return None
        return tuple(int(number) - 1 for number in numbers)

    def order_of_line(value: str) -> tuple[int, ...] | None:
        return order_of([number.strip() for number in value.split(">")])

    written = r"\[?\d+(?:[>,\s]+\d+)*\]?"
    form = _Form(parser, "ranking" if parser == "json" else "verdict", written, order_of, order_of_line)
    return OrderReading(*_read(form, answer, constrained, cut_off, texts))


VerdictT = TypeVar("VerdictT")


@dataclass(frozen=True)
class _Form(Generic[VerdictT]):
    """What is looked for."""

    parser: Parser
    field: str
    """Of the JSON object."""
    written: str
    """Regular expression of a verdict as one writes it."""
    meaning: Callable[[Any], VerdictT | None]
    """Of what was written in a JSON field or a line; None if it is no verdict."""
    bare: Callable[[str], VerdictT | None]
    """Of a whole answer."""


@lru_cache
def _form_of(parser: Parser, labels: tuple[str, ...]) -> _Form[str]:
    """What to look for in answers that name one of `labels`: the same for all answers to a rubric."""

    def label_of(value: Any) -> str | None:
        matching = [label for label in labels if isinstance(value, str) and label.casefold() == value.casefold()]
        return matching[0] if len(matching) == 1 else None

    written = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return _Form(parser, "verdict", written, label_of, lambda value: value if value in labels else None)


_OPEN_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"
_LONGEST_LINE = 200
"""Characters of a last line that is worth reading: patterns take time over longer ones."""
_FINAL_LINE = re.compile(r"(?:\*\*)?verdict\s*:\s*(?:\*\*)?\s*(?P<value>[^*]+?)\s*\.?(?:\*\*)?", re.IGNORECASE)
_LAST_OBJECT = re.compile(r"(?:\A|\n)[ \t]*(?P<object>\{[^{}]*\})\s*(?:```)?\Z")
_NAMES = r"(?:verdict|answer|decision|choice|ranking)"
_IS = r"[*_]*(?:\s*[:=]|\s+is\b)[*_]*\s*"


def _read(
    form: _Form[VerdictT], answer: str, constrained: bool, cut_off: bool, texts: Collection[str]
) -> tuple[VerdictT | None, Rung, str | None]:
    """The ladder. What decoding was bound to is there or was cut off: there is nothing to forgive."""
    final = _after_thought(answer)
    if final is None or (cut_off and (form.parser != "exact" or form.bare(answer.strip()) is None)):
        return None, Rung.ABSTAIN, None
    found, rung = _strict(form, final), Rung.CONSTRAINED if constrained else Rung.STRICT
    if found is None and not constrained:
        found, rung = _tolerant(form, final, texts), Rung.TOLERANT
    return (None, Rung.ABSTAIN, None) if found is None else (found[0], rung, _presentable(found[1]))


def _after_thought(answer: str) -> str | None:
    """What a reasoning model says after its thoughts, or None if it never came to that.

    Thoughts end at the first mark: a later one may be quoted. An answer that opens as JSON has none.
    """
    answer = answer.strip()
    thought, mark, final = answer.partition(_END_OF_THOUGHT)
    if not mark:
        return None if answer.startswith(_OPEN_THOUGHT) else answer
    return answer if thought.startswith(("{", "```")) else final.strip()


def _strict(form: _Form[VerdictT], answer: str) -> tuple[VerdictT, str] | None:
    """The verdict and what was said before it."""
    if form.parser == "exact":
        verdict, before = form.bare(answer), ""
    elif form.parser == "json":
        fields = _object(answer)
        value, reasoning = fields.get(form.field), fields.get("reasoning")
        verdict = form.meaning(value.strip() if isinstance(value, str) else value)
        before = reasoning if isinstance(reasoning, str) else ""
    else:
        before, line = _last_line(answer)
        match = _FINAL_LINE.fullmatch(line)
        verdict = form.meaning(match["value"]) if match else None
    return None if verdict is None else (verdict, before)


def _object(answer: str) -> dict[str, Any]:
    """The one JSON object that `answer` is, bare or as a code block; empty if it is none."""
    if answer.startswith("```"):
        answer = answer.removeprefix("```").removeprefix("json").removesuffix("```")
    try:
        fields = json.loads(answer, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one with a repeated key names two verdicts and is refused."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields


def _tolerant(form: _Form[VerdictT], answer: str, texts: Collection[str]) -> tuple[VerdictT, str] | None:
    """The verdict that `answer` ends in, and what was said before it, if no other is named and nothing suggests that
    it is quoted."""
    if bare := re.fullmatch(rf"{_dressed(form.written)}\.?", answer, re.IGNORECASE):
        verdict = form.meaning(bare["value"])
        return None if verdict is None else (verdict, "")
    if ending := _LAST_OBJECT.search(answer):
        before, statement = answer[: ending.start("object")].rstrip(), ending["object"]
        before = before.removesuffix("```json").removesuffix("```")
        field = rf"[\"']{form.field}[\"']\s*:\s*{_dressed(form.written)}[\s,]*\}}\Z"
        found = re.search(field, statement, re.IGNORECASE)
    else:
        before, statement = _last_line(answer)
        line = rf"[*_#\s]*(?:(?:my|the|final) )*{_NAMES}{_IS}{_dressed(form.written)}[.!]?[*_]*"
        found = re.fullmatch(line, statement, re.IGNORECASE)
    if not found or _is_open(before) or _is_open(statement[1 : found.start()]) or _stands_in(found[0], texts):
        return None
    verdict = form.meaning(found["value"])
    if verdict is None or any(form.meaning(value) != verdict for value in _named(form, answer)):
        return None
    return verdict, before + statement[: found.start()]


def _named(form: _Form[VerdictT], answer: str) -> list[str]:
    """All that is named as a verdict anywhere in `answer`, quoted or not."""
    gap = r"[\s\\*_\"'`“”‘’(\[{]*"
    pattern = rf"\b{_NAMES}\b{gap}(?:[:=：]|is\b){gap}(?P<value>{form.written})(?!\w)"
    return [match["value"] for match in re.finditer(pattern, answer, re.IGNORECASE)]


def _dressed(written: str) -> str:
    """Regular expression of a verdict in bold, quotation marks or brackets, or in none."""
    return rf"[*_]*(?P<open>[\"'`(\[])?(?P<value>{written})(?(open)[\"'`)\]])[*_]*"


def _is_open(before: str) -> bool:
    """Whether a quotation, a code block or an object begins in `before` and has not ended."""
    halves = (before.count('"') % 2, before.count("```") % 2, before.count("“") > before.count("”"))
    return any(halves) or "{" in before


def _stands_in(statement: str, texts: Collection[str]) -> bool:
    wanted = " ".join(statement.casefold().split())
    return any(wanted in " ".join(text.casefold().split()) for text in texts)


def _last_line(answer: str) -> tuple[str, str]:
    """What comes before the last line, and that line with single spaces, or nothing if it is too long for a verdict."""
    line = (answer.splitlines() or [""])[-1]
    return answer.removesuffix(line), " ".join(line.split()) if len(line) <= _LONGEST_LINE else ""


def _presentable(rationale: str) -> str | None:
    """`rationale` at a length to keep, as something that can be sent; None for an empty one."""
    return rationale.strip()[:MAX_RATIONALE_CHARS].encode("utf-8", "replace").decode() or None
