"""Word-level tokenizers of the nano world: one for the policy, one with the teacher's control tokens and answers.

Texts are words joined by single spaces; decoding gives them back exactly. Unknown words become `<unk>`.
"""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from preceptor_trainer.nano.prompts import ANSWERS, CONTROL_TOKENS
from preceptor_trainer.nano.world import vocabulary

_SPECIAL = ("<pad>", "<unk>", "<eos>")


def policy_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the world's words only: a policy cannot even write a control token."""
    return _build([*_SPECIAL, *vocabulary()], [])


def teacher_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the world's words, the control tokens of the prompts, and the answers."""
    return _build([*_SPECIAL, *CONTROL_TOKENS, *ANSWERS, *vocabulary()], list(CONTROL_TOKENS))


def _build(words: list[str], control: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=control,
        clean_up_tokenization_spaces=False,
    )
