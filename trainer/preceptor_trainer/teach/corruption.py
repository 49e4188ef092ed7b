"""A suffix made worse, in a way that is known. Pure but for the random generator.

    shuffle    the words of a stretch in another order     replace    words by those of another document
    repeat     a phrase over and over                      misstate   names and numbers by others
    drop       words left out                              splice     from some place on another document's suffix
                                                           foreign    all of another document's suffix

In: a suffix, a donor (another document's suffix) and a random generator. Out: the corrupted suffix and how it was done.
Guarantees: its words are not those of the suffix; white space stays where it was, so that it cannot give away which of
two texts was corrupted. Words are what white space separates, so that this works on every language that has it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal, get_args

Kind = Literal["shuffle", "repeat", "drop", "replace", "misstate", "splice", "foreign"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FEWEST_WORDS = 4
_STRETCH = 0.5
"""Of the words at least so many are shuffled."""
_CHANGED = 0.25
"""Share of words that are dropped or replaced, at least one."""
_PHRASE = (1, 5)
"""Words of a phrase that is repeated."""
_STATED = re.compile(r"\W*(?:[A-Z]\w*|\d[\d.,:%]*)\W*")
"""A name or a number; first words of sentences are taken for names as well."""
_ENDS = re.compile(r"""[.!?。！？][)"'”’»\]]*\Z""")


def corrupt(text: str, donor: str, rng: random.Random, kinds: Sequence[Kind] = KINDS) -> tuple[Kind, str] | None:
    """`text` corrupted in one of `kinds`, drawn from those that can change it; None if none can."""
    words, given = text.split(), donor.split()
    if len(words) < _FEWEST_WORDS or len(given) < _FEWEST_WORDS:
        return None
    for kind in rng.sample(kinds, len(kinds)):
        made = _made(kind, words, given, rng)
        if made and made != words:
            return kind, _spaced(made, text)
    return None


def ends_whole(text: str) -> bool:
    """Whether `text` stops where a sentence does."""
    return _ENDS.search(text.rstrip()) is not None


def completed(text: str) -> str:
    """`text` so that it feels complete: back to where its last sentence ends if that is in its second half, else with
    a full stop.
    """
    body = text.rstrip()
    words = body.split()
    for count in range(len(words), len(words) // 2, -1):
        if ends_whole(words[count - 1]):
            return _spaced(words[:count], text)
    # A full stop is a word of its own where the text has it so.
    return body.rstrip(",;:-–—") + (" ." if " . " in text else ".")


def broken_off(text: str, rng: random.Random) -> str:
    """`text` without its last words, up to a third of them, so that it stops inside a sentence."""
    words = text.split()
    keep = len(words) - rng.randint(1, max(1, len(words) // 3))
    while keep > 1 and ends_whole(words[keep - 1]):
        keep -= 1
    return _spaced(words[: max(1, keep)], text).rstrip(".!?。！？")


def _made(kind: Kind, words: list[str], donor: list[str], rng: random.Random) -> list[str] | None:
    """None where it cannot be done so."""
    match kind:
        case "shuffle":
            size = rng.randint(max(3, round(_STRETCH * len(words))), len(words))
            start = rng.randint(0, len(words) - size)
            return words[:start] + rng.sample(words[start : start + size], size) + words[start + size :]
        case "repeat":
            start = rng.randint(1, len(words) // 2)
            phrase = words[max(0, start - rng.randint(*_PHRASE)) : start]
            return (words[:start] + phrase * len(words))[: len(words)]
        case "drop":
            gone = _some(words, rng)
            return [word for place, word in enumerate(words) if place not in gone]
        case "replace":
            gone = _some(words, rng)
            return [rng.choice(donor) if place in gone else word for place, word in enumerate(words)]
        case "misstate":
            return _misstated(words, [word for word in donor if _STATED.fullmatch(word)], rng)
        case "splice":
            at = rng.randint(1, len(words) // 2)
            return words[:at] + donor[at : len(words)]
        case "foreign":
            return donor[: len(words)]


def _some(words: Sequence[str], rng: random.Random) -> set[int]:
    return set(rng.sample(range(len(words)), max(1, round(_CHANGED * len(words)))))


def _misstated(words: list[str], others: list[str], rng: random.Random) -> list[str] | None:
    """Each number with other digits, each name by one of the donor's."""
    stated = [place for place, word in enumerate(words) if _STATED.fullmatch(word)]
    changed = list(words)
    for place in stated:
        word = words[place]
        if any(sign.isdigit() for sign in word):
            changed[place] = re.sub(r"\d", lambda digit: str((int(digit[0]) + rng.randint(1, 9)) % 10), word)
        elif others:
            changed[place] = rng.choice(others)
    return changed if stated else None


def _spaced(words: Sequence[str], like: str) -> str:
    """`words` with the white space of `like` between them, as far as it goes."""
    gaps = re.split(r"\S+", like)
    before, between = gaps[0], gaps[1:-1]
    parts = [before, words[0]]
    for place, word in enumerate(words[1:]):
        parts += [between[place] if place < len(between) else " ", word]
    return "".join(parts)
