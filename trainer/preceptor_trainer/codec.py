"""Between texts and the policy's tokens.

In: a Hugging Face tokenizer. Out: token ids without special tokens, and the text that they stand for. Guarantees:
what the judge reads is what the policy is trained on; special tokens that a policy samples stay visible in the text,
so that they cannot be a way to say something to nobody. Only an end-of-text token at the very end is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preceptor_trainer.errors import TrainError


class Codec:
    """`tokenizer` is a `PreTrainedTokenizerBase`; one codec may be used by several threads, one at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_id: int | None = tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without an end-of-text token at its end."""
        if ids and ids[-1] == self.eos_id:
            ids = ids[:-1]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def control(self, token: str) -> int:
        """The id of a control token. Raises `TrainError` if `token` is not one token."""
        if (id := token_id(self.tokenizer, token)) is None:
            raise TrainError(f"{token} is not one token of the policy's tokenizer: name a control it was trained with")
        return id

    def encode_rewrite(self, rewrite: str, original: str, limit: int) -> list[int]:
        """At most `limit` ids of `rewrite`, joined to the prefix the way `original` was: with its leading white
        space.
        """
        space = original[: len(original) - len(original.lstrip())]
        return self.encode(space + rewrite.lstrip())[:limit]


def token_id(tokenizer: Any, token: str) -> int | None:
    """The id that stands for `token` alone; None if there is no such."""
    ids: list[int] = tokenizer.encode(token, add_special_tokens=False, verbose=False)
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None
