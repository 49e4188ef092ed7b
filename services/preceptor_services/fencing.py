"""Text from outside made harmless before it enters a prompt. Pure.

Candidates are written by a policy that is rewarded by the judge, so they are treated as hostile: a candidate that
ends the judge's turn, or closes the quotation it stands in, could write its own verdict. In: any text. Out: text of
the same meaning that
  - holds no control token of a chat template, nor one that the rubric set declares (their brackets become ‹ › ( )),
    not even after a tokenizer has brought full-width letters to ASCII, or dropped accents and invisible characters,
  - holds no control, invisible-formatting or unpaired surrogate characters,
  - does not contain its prompt's fence.

Guarantees: neutralising twice changes nothing more; ordinary text passes unchanged. The fence depends on the texts
alone, so that the prompts of one cohort share a prefix in the engine's cache and a retried cohort asks the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f"  # control characters, without tab and line breaks
    "\u00ad\u061c\u200b\u200e\u200f\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero-width and direction marks, annotations
    "\u202a-\u202e\ud800-\udfff\U000e0000-\U000e007f]"  # direction overrides, unpaired surrogates, tag characters
)
_SELECTORS = re.compile("([\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
"""One selector chooses a glyph; more in a row can only carry hidden bytes."""

# Shapes that no template needs declared: they mean nothing outside of one. Operators (`f <| x`, `x |> f`, `p <|> q`)
# stand apart from words; the two ends of a text do not count as apart.
_PIPED = r"<\|(?![\s>])|(?<![\s<])\|>|\[\|(?:system|user|assistant|tool|endofturn)\|\]"
_BRACKETED = (
    r"\[/?(?:INST|SYSTEM_PROMPT|MODEL_SETTINGS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|"
    r"IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|CLS|SEP|PAD|UNK|MASK|BOS|EOS|[gs]?MASK|"
    r"sop|eop)\]|\]~!?b[\[\]]|\[e~\["
)
_ANGLED = (
    r"<{1,2}/?(?:s|bos|eos|pad|unk|mask(?::\d+)?|cls|sep|SYS|sop|eop|eo[adhm]|EOT|PAD|UNK|CLS|SEP|[A-Z]+_TOKEN|think|"
    r"answer|system|user|assistant|model|tool|role|image|audio|video|tool_\w+|TOOLCALL|AVAILABLE_TOOLS|function\w*|"
    r"(?:start|end|beginning)_of_\w+|(?:seed|minimax):\w+|fim_\w+|unused_?\d+|TOKENS_UNUSED_\d+|extra_id_\d+|"
    r"SPECIAL_\d+|reserved\w*|special\w*|用户|AI)>{1,2}"
)
_WEAKENED = str.maketrans("<＜﹤≮>＞﹥≯[［﹇]］﹈|｜", "‹‹‹‹››››((()))¦¦")
"""Brackets that no tokenizer treats specially, in place of those and of all that a tokenizer may take for them."""
_DROPPED = {"Mn", "Me", "Cf"}
"""Categories of accents, and of invisible characters that ordinary text needs: joiners, variation selectors."""


class _Folding(dict[int, str]):
    """What the most eager tokenizer makes of a character before it looks for control tokens. For `str.translate`."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKD", chr(code))
        self[code] = "".join(character for character in plain if unicodedata.category(character) not in _DROPPED)
        return self[code]


_FOLDED = _Folding()


class Neutraliser:
    """Takes control tokens out of texts; `control_tokens` are those beyond those that chat templates commonly use, and
    are found in any case."""

    def __init__(self, control_tokens: Iterable[str] = (), *, collapse_whitespace: bool = False) -> None:
        folded = {token.translate(_FOLDED) for token in control_tokens}
        declared = [f"(?i:{re.escape(token)})" for token in sorted(folded, key=len, reverse=True)]
        self._control = re.compile("|".join([*declared, _PIPED, _BRACKETED, _ANGLED]))
        self._collapse_whitespace = collapse_whitespace

    def clean(self, text: str) -> str:
        """`text` without control tokens and control characters."""
        text = _without_invisible(text)
        if self._collapse_whitespace:
            text = " ".join(text.split())
        parts, done = [], 0
        for start, end in self._spans(text):
            parts += [text[done:start], text[start:end].translate(_WEAKENED)]
            done = end
        return "".join([*parts, text[done:]])

    def restore(self, text: str, original: str) -> str:
        """`text` with those control tokens put back that `original` holds: for a rewrite of `original`."""
        original = _without_invisible(original)
        for token in dict.fromkeys(original[start:end] for start, end in self._spans(original)):
            text = text.replace(token.translate(_WEAKENED), token)
        return text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the control tokens of `text` stand."""
        if text.isascii():
            yield from (match.span() for match in self._control.finditer(text))
            return
        folded = text.translate(_FOLDED)
        places: list[int] | None = None
        for match in self._control.finditer(folded):
            if places is None:  # for each folded character the index of the one that it comes from
                places = [index for index, character in enumerate(text) for _ in _FOLDED[ord(character)]]
            yield places[match.start()], places[match.end() - 1] + 1


def _without_invisible(text: str) -> str:
    return _SELECTORS.sub(r"\1", _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", text)))


def fence_for(texts: Iterable[str]) -> str:
    """A short mark that occurs in none of `texts`, decided by them alone and so not to be foreseen from within one."""
    texts = list(texts)
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    while any(digest.hexdigest()[:8] in text for text in texts):
        digest.update(b"again")
    return digest.hexdigest()[:8]
