"""The windows of a run, in the order in which it uses them.

In: documents (re-opened for every epoch), a tokenizer, sizes and a seed. Out: an iterator over `Window`s, each with
the `Position` after it. Guarantees: the same inputs give the same windows in the same order, and a stream started at
a position goes on exactly there. A position counts documents, so that the way to it is read and not tokenised, and
the epochs before it are not even read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import Document, PassedOver, stream_documents
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.windows import Window, WindowSizes, cut

_MIXTURE_PATIENCE = 10_000
"""Documents of a mixture, which has no end, after which it is taken to hold none that is long enough."""


@dataclass(frozen=True, order=True)
class Position:
    """`documents` of `epoch` have been taken from the stream (after shuffling). A later position is greater."""

    epoch: int = 0
    documents: int = 0


class WindowStream:
    """Iterate once. `encode` turns a text into token ids, adding no special tokens. `skipped` counts too short
    documents.

    Raises `DocumentError` if a whole epoch holds no document long enough, or fewer documents than `start` counts.
    """

    def __init__(
        self,
        config: DataConfig,
        encode: Callable[[str], Sequence[int]],
        *,
        start: Position = Position(),
        documents: Callable[[DataConfig, int], Iterator[Document]] = stream_documents,
    ) -> None:
        self._config = config
        self._encode = encode
        self._documents = documents
        self._sizes = WindowSizes(config.prefix_tokens, config.min_prefix_tokens, config.suffix_tokens)
        self._start = start
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[Window, Position]]:
        config = self._config
        epoch, already = self._start.epoch, self._start.documents
        while config.epochs is None or epoch < config.epochs:
            windows = taken = 0
            shuffle = random.Random(f"{config.seed}/{epoch}")
            documents = shuffled(self._documents(config, epoch), config.shuffle_buffer, shuffle)
            for taken, document in enumerate(documents, start=1):
                if taken <= already:
                    continue
                ids = self._encode(document.text)
                window = cut(ids, self._sizes, seed=config.seed, epoch=epoch, document=document.index)
                if window is None:
                    self.skipped += 1
                    if config.mixture and not windows and taken - already >= _MIXTURE_PATIENCE:
                        raise self._too_short()
                else:
                    windows += 1
                    yield window, Position(epoch, taken)
            if taken < already:
                raise DocumentError(
                    f"{config.name}: holds {taken} documents, and the run that is resumed had taken {already}: "
                    "give it the documents that it began with"
                )
            if not windows and not already:
                raise self._too_short()
            epoch, already = epoch + 1, 0

    def _too_short(self) -> DocumentError:
        return DocumentError(
            f"{self._config.name}: no document has {self._sizes.min_prefix + self._sizes.suffix} tokens; "
            "lower data.suffix_tokens or data.min_prefix_tokens"
        )


def held_out(
    config: DataConfig, encode: Callable[[str], Sequence[int]], count: int, say: Callable[[str], None]
) -> list[Window]:
    """The first `count` windows, or as many as there are; `say` is told what was passed over. Raises `DocumentError`
    without any."""
    documents = partial(stream_documents, passed_over=PassedOver(say))
    return [window for window, _ in islice(WindowStream(config, encode, documents=documents), count)]


def shuffled(documents: Iterator[Document], size: int, rng: random.Random) -> Iterator[Document]:
    """`documents`, each swapped at random out of a buffer of `size`; unchanged if `size` is 0."""
    if size == 0:
        yield from documents
        return
    held: list[Document] = []
    for document in documents:
        if len(held) < size:
            held.append(document)
            continue
        place = rng.randrange(size)
        held[place], document = document, held[place]
        yield document
    rng.shuffle(held)
    yield from held
