"""What can be measured of a text without a teacher: its length, what it repeats, what it copies. Pure.

In: texts. Out: counts and shares. Case, punctuation, apostrophes and invisible characters make no difference, so a
loop is not hidden by varying them. In scripts that set no spaces between words every letter is a word.
Guarantees: a text said k times over repeats (k-1)/k of itself, whatever its length; shares are in [0, 1].
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence, Set

_LONGEST_WORD = 32
"""A longer one is a loop without spaces (`hahahahaha...`), or does not matter: it is measured letter by letter."""
_SIGN_RUN = 4
"""So many signs in a row are no punctuation any more, and each is measured like a word."""
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_APOSTROPHES = "'’"
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)

Gram = tuple[str, ...]


class _Spacing(dict[int, str]):
    """For `str.translate`: what each character becomes, so that splitting at spaces gives words and single signs."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        unspaced = any(first <= code <= last for first, last in _UNSPACED)
        if kind == "Cf" or character in _APOSTROPHES or code in _VARIATION_SELECTORS or (unspaced and kind[0] == "M"):
            spaced = ""
        elif kind[0] in "CZ":
            spaced = " "
        elif kind[0] in "LMN" and not unspaced:
            spaced = character
        else:
            spaced = f" {character} "
        self[code] = spaced
        return spaced


_SPACING = _Spacing()


def words(text: str) -> list[str]:
    """The words of `text`, without case and punctuation."""
    return [part for part in _parts(text) if not _is_sign(part)]


def units(text: str) -> list[str]:
    """What repetition is measured in: words, the letters of overlong ones, and the signs of long runs of signs."""
    found: list[str] = []
    signs: list[str] = []
    for part in _parts(text):
        if _is_sign(part):
            signs.append(part)
            continue
        if len(signs) >= _SIGN_RUN:
            found += signs
        signs.clear()
        found += [part] if len(part) <= _LONGEST_WORD else list(part)
    return found + signs if len(signs) >= _SIGN_RUN else found


def ngrams(sequence: Sequence[str], n: int) -> Iterator[Gram]:
    """Every `n` neighbours in `sequence`, from left to right."""
    return zip(*(sequence[start:] for start in range(n)), strict=False)


def repetition(sequence: Sequence[str], n: int, said: Set[Gram] = frozenset()) -> float:
    """Share of `sequence` that stands in an n-gram which occurred before in it, or which is in `said`.

    In itself a sequence shorter than 2n is measured by n-grams of half its length, but of no single words unless n is
    1: it could not repeat a longer one, and yet be nothing but repetition.
    """
    own = min(n, max(2, len(sequence) // 2))
    before: set[Gram] = set()
    repeated: set[int] = set()
    for start, gram in enumerate(ngrams(sequence, own)):
        if gram in before:
            repeated.update(range(start, start + own))
        before.add(gram)
    return _share(repeated | _standing_in(sequence, n, said), sequence)


def copied(sequence: Sequence[str], n: int, given: Set[Gram]) -> float:
    """Share of `sequence` that stands in one of the n-grams `given`."""
    return _share(_standing_in(sequence, n, given), sequence)


def kept(sequence: Sequence[str], of: Sequence[str]) -> float:
    """Share of `of` that `sequence` keeps, in order: their longest common subsequence over the length of `of`.

    A row of the dynamic programme is one number, a bit per place (Hyyrö 2004), so that hostile texts cost no more than
    others.
    """
    places: dict[str, int] = {}
    for place, part in enumerate(of):
        places[part] = places.get(part, 0) | 1 << place
    everywhere = (1 << len(of)) - 1
    open_places = everywhere
    for part in sequence:
        found = open_places & places.get(part, 0)
        open_places = (open_places + found | open_places - found) & everywhere
    return 1 - open_places.bit_count() / len(of) if of else 1.0


def _parts(text: str) -> list[str]:
    return unicodedata.normalize("NFKC", text).casefold().translate(_SPACING).split()


def _is_sign(part: str) -> bool:
    return unicodedata.category(part[0])[0] in "PS"


def _standing_in(sequence: Sequence[str], n: int, grams: Set[Gram]) -> set[int]:
    return {
        place for start, gram in enumerate(ngrams(sequence, n)) if gram in grams for place in range(start, start + n)
    }


def _share(places: set[int], sequence: Sequence[str]) -> float:
    return len(places) / len(sequence) if sequence else 0.0
