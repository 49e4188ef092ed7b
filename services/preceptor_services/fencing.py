"""Text from outside made harmless before it enters a prompt. Pure.

Candidates are written by a policy that is rewarded by the judge, so they are treated as hostile: a candidate that
ends the judge's turn, or closes the quotation it stands in, could write its own verdict. In: any text. Out: text of
the same meaning that
  - holds no control token of a chat template, nor one that the rubric set declares (their brackets become ‹ › ( )),
  - holds no control, invisible-formatting or unpaired surrogate characters,
  - does not contain its prompt's fence.

Guarantees: neutralising twice changes nothing more; ordinary text passes unchanged. The fence depends on the texts
alone, so that the prompts of one cohort share a prefix in the engine's cache and a retried cohort asks the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f"  # control characters, without tab and line breaks
    "\u00ad\u200b\u200e\u200f\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero-width and direction marks, annotations
    "\u202a-\u202e\ud800-\udfff\U000e0000-\U000e007f]"  # direction overrides, unpaired surrogates, tag characters
)

# Shapes that no template needs declared: they mean nothing outside of one.
_PIPED = r"<[|｜]|[|｜]>"
_BRACKETED = (
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG|"
    r"PREFIX|MIDDLE|SUFFIX|CLS|SEP|PAD|UNK|MASK|BOS|EOS|gMASK|sop)\]"
)
_ANGLED = (
    r"<{1,2}/?(?:s|bos|eos|pad|unk|mask|cls|sep|SYS|sop|eop|think|answer|system|user|assistant|model|tool|image|audio|"
    r"video|tool_\w+|function\w*|(?:start|end)_of_\w+|fim_\w+|unused_?\d+|extra_id_\d+|reserved\w*|special\w*)>{1,2}"
)
_WEAKENED = str.maketrans("<>[]|｜", "‹›()¦¦")


class Neutraliser:
    """Takes control tokens out of texts; `control_tokens` are those beyond those that chat templates commonly use."""

    def __init__(self, control_tokens: Iterable[str] = (), *, collapse_whitespace: bool = False) -> None:
        declared = [re.escape(token) for token in sorted(control_tokens, key=len, reverse=True)]
        self._control = re.compile("|".join([*declared, _PIPED, _BRACKETED, _ANGLED]))
        self._collapse_whitespace = collapse_whitespace

    def clean(self, text: str) -> str:
        """`text` without control tokens and control characters."""
        text = _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", text))
        text = self._control.sub(lambda match: _weaken(match[0]), text)
        return " ".join(text.split()) if self._collapse_whitespace else text

    def restore(self, text: str, original: str) -> str:
        """`text` with those control tokens put back that `original` holds: for a rewrite of `original`."""
        for token in dict.fromkeys(self._control.findall(original)):
            text = text.replace(_weaken(token), token)
        return text


def _weaken(token: str) -> str:
    """`token` with brackets that no tokenizer treats specially."""
    return token.translate(_WEAKENED)


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
