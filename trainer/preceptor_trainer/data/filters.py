"""Which documents are used, and in which form. Pure.

In: texts with the records they came from. Out: the text in its normal form, and whether it is kept; whether a text was
there before. Guarantees: what is said of a document depends on that document alone, but for `Seen`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

from preceptor_trainer.data.config import FieldRule, Keep

_LINE_ENDS = re.compile(r"\r\n?|\x85|\u2028|\u2029")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_BLANK_LINES = re.compile(r"\n{3,}")
_BLANKS_AT_END = re.compile(r"[^\S\n]+(?=\n|\Z)")


def normalized(text: str, form: Literal["none", "NFC", "NFKC"]) -> str:
    """`text` in that Unicode form, with one kind of line end, no control characters but tabs and line ends, no blanks
    at the ends of lines, and at most one empty line in a row. Doing it twice changes nothing more."""
    if form == "none":
        return text
    text = _CONTROL.sub("", _LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize(form, text)
    return _BLANK_LINES.sub("\n\n", _BLANKS_AT_END.sub("", text)).strip("\n")


def kept(text: str, record: Mapping[str, Any], keep: Keep) -> bool:
    """Whether a document meets all of `keep`."""
    if len(text) < keep.min_chars or (keep.max_chars is not None and len(text) > keep.max_chars):
        return False
    if keep.min_words and len(text.split()) < keep.min_words:
        return False
    if keep.letters and letters(text) < keep.letters:
        return False
    return all(meets(record, rule) for rule in keep.fields)


def letters(text: str) -> float:
    """Share of letters (of any script, marks with them) among all that is no white space; 0 for a blank text."""
    solid = [character for character in text if not character.isspace()]
    return sum(unicodedata.category(each)[0] in "LM" for each in solid) / len(solid) if solid else 0.0


def meets(record: Mapping[str, Any], rule: FieldRule) -> bool:
    """Whether the field is there and as the rule wants it."""
    value = field_of(record, rule.field)
    if rule.one_of is not None and not any(value == each and type(value) is type(each) for each in rule.one_of):
        return False
    if rule.at_least is None and rule.at_most is None:
        return True
    if not isinstance(value, int | float):
        return False
    return not (
        (rule.at_least is not None and not value >= rule.at_least)
        or (rule.at_most is not None and not value <= rule.at_most)
    )


def field_of(record: Any, path: str) -> Any:
    """What `path` leads to, None if nothing: through objects by name, through lists by place (-1 is the last), and
    through texts that are JSON."""
    value = record
    for step in path.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list | tuple) and re.fullmatch(r"-?\d+", step) and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


class Seen:
    """Texts that were there before, by their 64-bit hashes: among ten million texts, the chance that one is taken for
    another is one in 370,000."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, text: str) -> bool:
        """Whether `text` is new, white space and case aside."""
        plain = " ".join(text.lower().split()).encode("utf-8")
        key = int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest())
        if key in self._hashes:
            return False
        self._hashes.add(key)
        return True
