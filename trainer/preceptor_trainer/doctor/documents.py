"""The documents: can they be read, and cut into windows?"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import islice

from preceptor_client.checks import Check
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import Document, PassedOver, stream_documents
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.stream import WindowStream
from preceptor_trainer.data.windows import Window
from preceptor_trainer.guards.held_out import held_out_windows

_WINDOWS = 16
_DOCUMENTS = 1_000
"""So many are looked at for windows."""


def check_documents(config: TrainConfig, codec: Codec) -> Generator[Check, None, list[Window]]:
    """The first documents in their own order: shuffling would read ahead. Returns their windows, the longest first."""
    lengths: list[int] = []
    passed_over: list[str] = []

    def encode(text: str) -> Sequence[int]:
        ids = codec.encode(text)
        lengths.append(len(ids))
        return ids

    stream = WindowStream(
        config.data.in_order(), encode, documents=partial(_first, passed_over=PassedOver(passed_over.append))
    )
    try:
        windows = [window for window, _ in islice(stream, _WINDOWS)]
    except DocumentError as error:
        yield Check("documents", "failure", str(error), "set data.path, or what the text names")
        return []
    yield documents_found(config.data, lengths, len(windows))
    for text in passed_over:
        yield Check("documents", "warning", text, "data.bad_documents=stop ends the run there")
    return sorted(windows, key=lambda window: -len(window.prefix))


def check_held_out(config: TrainConfig, codec: Codec) -> Iterator[Check]:
    """Those of the guard `held_out_nll`."""
    if not config.guards.held_out_nll:
        return
    try:
        windows = held_out_windows(config, codec, lambda text: None)
    except DocumentError as error:
        yield Check("held out", "failure", str(error), "set guards.held_out_nll.path")
    else:
        yield Check("held out", "ok", f"{len(windows)} windows")


def documents_found(data: DataConfig, lengths: Sequence[int], windows: int) -> Check:
    """`lengths` in tokens are of the documents that gave so many windows. Pure."""
    spread = sorted(lengths)
    found = (
        f"{windows} windows from the first {len(lengths)} documents, of {spread[0]:,} to {spread[-1]:,} tokens, "
        f"{spread[len(spread) // 2]:,} in the middle"
    )
    if windows < len(lengths) / 2:
        least = data.min_prefix_tokens + data.suffix_tokens
        return Check("documents", "warning", f"{found}; most have less than {least}", "lower data.suffix_tokens")
    return Check("documents", "ok", found)


def _first(config: DataConfig, epoch: int, *, passed_over: PassedOver) -> Iterator[Document]:
    return islice(stream_documents(config, epoch, passed_over), _DOCUMENTS)
