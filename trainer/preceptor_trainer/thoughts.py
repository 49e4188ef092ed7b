"""A thought in front of a suffix: how the two are told apart, and what makes a thought malformed. Pure.

    <thought> the boss of alice is laura . </thought> good at golf .
    |------------------ thought -----------------|  |--- suffix ---|

In: token ids. Out: where the suffix begins. Guarantees: a thought is well formed if it opens at the very beginning,
closes within its bound, and neither delimiter occurs in it, or in the suffix that is judged, a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError


@dataclass(frozen=True)
class ThoughtFormat:
    """`open` and `close` are one token each; a thought has at most `limit` tokens, its delimiters among them, and of
    what follows it `suffix` tokens count.
    """

    open: int
    close: int
    limit: int
    suffix: int

    def split(self, ids: Sequence[int]) -> int | None:
        """How many of `ids` are its thought; None if that is malformed."""
        if not ids or ids[0] != self.open or self.close not in ids[: self.limit]:
            return None
        length = ids.index(self.close) + 1
        rest = ids[1 : length - 1], ids[length : length + self.suffix]
        return None if any(delimiter in part for delimiter in (self.open, self.close) for part in rest) else length

    def put(self, thought: Sequence[int], suffix: Sequence[int]) -> tuple[int, ...] | None:
        """`suffix` with `thought` in front, between delimiters; None if that is malformed, or there is no thought."""
        ids = (self.open, *thought, self.close, *suffix)
        return ids if thought and self.split(ids) == len(thought) + 2 else None


def thought_format(config: TrainConfig, codec: Codec) -> ThoughtFormat | None:
    """That of a run; None if it has no thoughts. Raises `TrainError` if a delimiter is not one token."""
    if config.thoughts is None:
        return None
    open_id, close_id = (
        _one_token(codec, key, text) for key, text in (("open", config.thoughts.open), ("close", config.thoughts.close))
    )
    return ThoughtFormat(open_id, close_id, config.thoughts.max_tokens, config.data.suffix_tokens)


def _one_token(codec: Codec, key: str, text: str) -> int:
    ids = codec.encode(text)
    if len(ids) != 1 or codec.decode(ids) != text:
        raise TrainError(
            f"thoughts.{key} ({text}) is not one token of the policy's tokenizer: name one that is, or add it to the "
            "tokenizer and resize the model's embeddings"
        )
    return ids[0]
