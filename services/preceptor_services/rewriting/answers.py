"""From what the teacher wrote to the text alone. Pure.

A teacher that was asked for nothing but the text still sets it in quotation marks or a code block, repeats the marker
lines of the prompt around it, or begins with the words that lead up to it. In: its answer, and the suffix that was
rewritten. Out: the text in between. Guarantees: what the suffix itself has is left as it is; a text that needs nothing
taken off passes unchanged.
"""

from __future__ import annotations

import re

_WRAPPINGS = (
    re.compile(r"```\w*[ \t]*\n(?P<text>.*)\n?```", re.DOTALL),
    re.compile(r"<(?P<tag>\w+)>(?P<text>.*)</(?P=tag)>", re.DOTALL),
    re.compile(r'"(?P<text>[^"]*)"'),
    re.compile(r"“(?P<text>[^“”]*)”"),
    re.compile(r"‘(?P<text>[^‘]*)’"),
    re.compile(r"«(?P<text>[^«»]*)»"),
    re.compile(r"„(?P<text>[^„“”]*)[“”]"),
    re.compile(r"「(?P<text>[^「」]*)」"),
)
"""Pairs that stand around a whole text, and not around its first and its last part."""
_LEAD = re.compile(r"(?:\.\.\.|…)\s*")


def without_wrapping(answer: str, suffix: str, fence: str) -> str:
    """`answer` without what stands around the whole of it: marker lines, a code block, quotation marks, an ellipsis."""
    text, given = answer.strip(), suffix.strip()
    markers = rf"\[begin {fence}\]\n(?P<text>.*)\n\[end {fence}\]"
    for wrapping in (re.compile(markers, re.DOTALL), *_WRAPPINGS):
        if (found := wrapping.fullmatch(text)) and not wrapping.match(given) and text[0] != given[:1]:
            text = found["text"].strip()
    lead = _LEAD.match(text)
    return text[lead.end() :] if lead and not _LEAD.match(given) else text


def without_join(answer: str, join: str, suffix: str = "", *, glued: bool = False) -> str:
    """`answer` without the words at its start that repeat the end of `join`, the prefix's last words.

    `glued`: the suffix goes on in the middle of the last word. Words with which the suffix itself starts are no
    repetition, nor is a part of a word, unless the whole of `join` is repeated.
    """
    given = join.split()
    for count in range(len(given), 0, -1):
        whole = count == len(given)
        end = "" if glued and whole else r"(?:\s+|\Z)"
        repeated = re.compile(r"\s*" + r"\s+".join(map(re.escape, given[-count:])) + end, re.IGNORECASE)
        if (found := repeated.match(answer)) and (whole or not repeated.match(suffix)):
            return answer[found.end() :]
    return answer


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same words and signs; whitespace does not count."""
    return one.split() == other.split()


def with_margins_of(original: str, text: str) -> str:
    """`text` with the whitespace before and after that `original` has, so that it joins its prefix the same way."""
    body = original.strip()
    before, _, after = original.partition(body) if body else ("", "", "")
    return before + text.strip() + after
