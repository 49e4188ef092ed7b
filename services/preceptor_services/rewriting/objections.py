"""Why an answer of the teacher is no rewrite. Pure; never guesses at what the teacher would have meant.

    empty -> marker -> declined -> talk -> copied -> looping -> length -> strayed

In: what the teacher wrote, and the prefix and suffix it was given. Out: the first `Objection`, or None if the text may
stand for the suffix. Guarantees: the suffix itself raises none; what it holds (a refusal that is quoted, a note, a
loop) may be in its rewrite as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from preceptor_client.contract import MAX_TEXT_CHARS, RewriteChecks
from preceptor_services.checks import copied, kept, ngrams, repetition, units, words
from preceptor_services.rewriting.phrases import BREAKS_OFF, DECLINES, OPENS, REMARKS
from preceptor_services.settings import RewritingSettings

_FEW_WORDS = 8
"""So many words more or less are no matter of proportion."""
_SHORT = 32
"""A suffix of fewer words may be replaced altogether."""
_COPY_NGRAM = 8
_LOOP_NGRAM = 4
_DRESS = r"""[\s("'“‘«*_#>\[（—-]{0,8}"""
"""What may stand around the beginning of a sentence."""
_SENTENCES = re.compile(rf"""(?:\A|(?<=[.!?。！？…:)"”»\]*_\n])){_DRESS}(?=\w)""")


class Fault(StrEnum):
    """Kinds of objections."""

    EMPTY = "empty"
    MARKER = "marker"
    """It holds the prompt's marker lines."""
    DECLINED = "declined"
    TALK = "talk"
    """It speaks about the rewrite, or gives several."""
    COPIED = "copied"
    """It repeats the prefix."""
    LOOPING = "looping"
    """It repeats itself."""
    LENGTH = "length"
    STRAYED = "strayed"
    """It keeps too little of the suffix."""


@dataclass(frozen=True)
class Objection:
    """What is wrong, for counting and for reading."""

    fault: Fault
    detail: str


def objection_to_answer(answer: str, suffix: str, fence: str) -> Objection | None:
    """Why `answer` is not a text but a refusal, or talk about the task."""
    text, given = answer.strip(), suffix.strip()
    if not text:
        return Objection(Fault.EMPTY, "the teacher answered with nothing")
    if fence in text:
        return Objection(Fault.MARKER, "the teacher repeated the prompt's marker lines")
    starts = _sentence_starts(text)
    opens = [place for place in starts[:2] if re.fullmatch(_DRESS, text[:place])]
    for pattern, places, fault in (
        (DECLINES, opens, Fault.DECLINED),
        (BREAKS_OFF, starts, Fault.DECLINED),
        (OPENS, opens, Fault.TALK),
        (REMARKS, starts, Fault.TALK),
    ):
        for place in places:
            if pattern.match(text, place) and not _has(given, pattern):
                what = "declined" if fault is Fault.DECLINED else "talked about the task"
                return Objection(fault, f"the teacher {what}: {text[place:][:80]!r}")
    return None


def _has(text: str, pattern: re.Pattern[str]) -> bool:
    """Whether a sentence of `text` begins so."""
    return any(pattern.match(text, place) for place in _sentence_starts(text))


def _sentence_starts(text: str) -> list[int]:
    return [0, *(found.end() for found in _SENTENCES.finditer(text))]


def objection_to_text(
    text: str, prefix: str, suffix: str, checks: RewriteChecks, settings: RewritingSettings
) -> Objection | None:
    """Why `text`, which is one, cannot stand for `suffix`."""
    own, given = units(text), units(suffix)
    before = frozenset(ngrams(units(prefix), _COPY_NGRAM))
    share, bound = copied(own, _COPY_NGRAM, before), max(settings.max_copied, copied(given, _COPY_NGRAM, before))
    if share > bound:
        return Objection(Fault.COPIED, f"{share:.2f} of the rewrite repeats the prefix, more than {bound:.2f}")
    share, bound = repetition(own, _LOOP_NGRAM), max(settings.max_repetition, repetition(given, _LOOP_NGRAM))
    if share > bound:
        return Objection(Fault.LOOPING, f"{share:.2f} of the rewrite repeats itself, more than {bound:.2f}")
    size, low, high = len(words(suffix)), settings.min_length_ratio, settings.max_length_ratio
    far = abs(len(words(text)) - size) > _FEW_WORDS
    if len(text) > MAX_TEXT_CHARS or (far and not low <= checks.length_ratio <= high):
        return Objection(
            Fault.LENGTH, f"the rewrite has {checks.length_ratio:.2f} times the words, not {low:g} to {high:g}"
        )
    if size >= _SHORT and checks.kept < settings.min_kept:
        return Objection(
            Fault.STRAYED, f"the rewrite keeps {checks.kept:.2f} of the words, less than {settings.min_kept:g}"
        )
    return None


def checks_of(text: str, suffix: str) -> RewriteChecks:
    """Length and likeness of a rewrite. A suffix without words is matched by anything."""
    own, given = words(text), words(suffix)
    return RewriteChecks(length_ratio=len(own) / len(given) if given else 1.0, kept=kept(own, given))
