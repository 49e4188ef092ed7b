"""Tokenizers of the hops: the nano world's, with the words of the hops and a token for each delimiter of a thought."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from preceptor_trainer.nano.hops.facts import WORDS
from preceptor_trainer.nano.tokenizer import policy_tokenizer

OPEN, CLOSE = "<thought>", "</thought>"
CONTROL_TOKENS = ("<insert>", "<match>", "<a>", "<answer>")
MATCH_ANSWERS = {"yes": 1.0, "no": 0.0}
"""Verdicts of the axis `match`, and what they are worth."""


def hops_policy_tokenizer() -> PreTrainedTokenizerFast:
    """For the policy, which can write a thought but no control token of the teacher."""
    return _extended(WORDS, (OPEN, CLOSE))


def hops_teacher_tokenizer() -> PreTrainedTokenizerFast:
    """For the teacher, which answers with the words of a thought, or with a verdict."""
    return _extended((*WORDS, *MATCH_ANSWERS), CONTROL_TOKENS)


def _extended(words: Sequence[str], special: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = policy_tokenizer()
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in words])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer
