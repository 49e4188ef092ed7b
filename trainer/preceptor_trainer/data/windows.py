"""How a document becomes a window: a prefix and the suffix that follows it. Pure.

In: the token ids of one document, the sizes, the seed, the epoch and the document's index. Out: a `Window`, or None
when the document is too short. Guarantees: the same inputs give the same window, whatever was cut before; prefix and
suffix are neighbours in the document and have the sizes asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowSizes:
    """In tokens. The suffix always has `suffix`; the prefix has what precedes it, between `min_prefix` and `prefix`."""

    prefix: int
    min_prefix: int
    suffix: int


@dataclass(frozen=True)
class Window:
    """A split document. `id` is unique in a run: `<epoch>-<document>`."""

    epoch: int
    document: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def id(self) -> str:
        return f"{self.epoch}-{self.document}"


def cut(ids: Sequence[int], sizes: WindowSizes, *, seed: int, epoch: int, document: int) -> Window | None:
    """Split `ids` at a point drawn evenly from all that leave room for a prefix and a suffix."""
    last = len(ids) - sizes.suffix
    if last < sizes.min_prefix:
        return None
    split = random.Random(f"{seed}/{epoch}/{document}").randint(sizes.min_prefix, last)
    return Window(
        epoch=epoch,
        document=document,
        prefix=tuple(ids[max(0, split - sizes.prefix) : split]),
        suffix=tuple(ids[split : split + sizes.suffix]),
    )
