from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import Document
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.stream import Position, WindowStream
from preceptor_trainer.data.windows import Window, WindowSizes, cut


@given(
    ids=st.lists(st.integers(0, 99), max_size=60),
    prefix=st.integers(1, 20),
    min_prefix=st.integers(1, 20),
    suffix=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_a_window_is_a_contiguous_piece_of_its_document_with_the_sizes_asked_for(
    ids: list[int], prefix: int, min_prefix: int, suffix: int, seed: int
) -> None:
    sizes = WindowSizes(prefix, min(prefix, min_prefix), suffix)
    window = cut(ids, sizes, seed=seed, epoch=1, document=7)
    if len(ids) < sizes.min_prefix + suffix:
        assert window is None
        return
    assert window is not None
    assert window.id == "1-7"
    assert sizes.min_prefix <= len(window.prefix) <= prefix
    assert len(window.suffix) == suffix
    whole = [*window.prefix, *window.suffix]
    assert any(ids[i : i + len(whole)] == whole for i in range(len(ids)))
    assert window == cut(ids, sizes, seed=seed, epoch=1, document=7)


def test_splits_reach_both_ends_and_differ_by_seed_epoch_and_document() -> None:
    ids = list(range(12))
    sizes = WindowSizes(12, 2, 3)
    splits = {cut(ids, sizes, seed=0, epoch=0, document=d).prefix[-1] for d in range(200)}  # type: ignore[union-attr]
    assert splits == set(range(1, 9))
    by_seed = {cut(ids, sizes, seed=s, epoch=0, document=0) for s in range(20)}
    by_epoch = {cut(ids, sizes, seed=0, epoch=e, document=0).suffix for e in range(20)}  # type: ignore[union-attr]
    assert len(by_seed) > 1
    assert len(by_epoch) > 1


def documents(texts: list[str]) -> Iterator[Document]:
    return (Document(index, text) for index, text in enumerate(texts))


def stream(texts: list[str], start: Position | None = None, **settings: object) -> WindowStream:
    config = DataConfig.model_validate(
        {"path": "here", "prefix_tokens": 4, "suffix_tokens": 2, "epochs": 2, "shuffle_buffer": 3, **settings}
    )
    return WindowStream(
        config,
        lambda text: [ord(letter) for letter in text],
        start=start or Position(),
        documents=lambda *_: documents(texts),
    )


TEXTS = ["abcdef", "a", "ghijkl", "mnopqr", "", "stuvwx", "yzabcd"]


def test_a_stream_skips_and_counts_short_documents_and_gives_each_other_once_an_epoch() -> None:
    windows = stream(TEXTS)
    seen = [window.id for window, _ in windows]
    assert sorted(seen) == sorted(f"{epoch}-{document}" for epoch in (0, 1) for document in (0, 2, 3, 5, 6))
    assert windows.skipped == 4


def test_shuffling_changes_the_order_by_epoch_and_none_keeps_it() -> None:
    texts = [letter * 6 for letter in "abcdefghijkl"]
    shuffled = [window.document for window, _ in stream(texts)]
    assert shuffled[:12] != sorted(shuffled[:12])
    assert shuffled[:12] != shuffled[12:]
    assert [window.document for window, _ in stream(texts, shuffle_buffer=0)] == list(range(12)) * 2


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    """Documents of which some are too short, at least one is not."""
    short, long = st.text("ab", max_size=2), st.text("abcdef", min_size=3, max_size=9)
    texts = draw(st.lists(short | long, max_size=12))
    return draw(st.permutations([*texts, draw(long)]))


@given(
    texts=corpora(),
    at=st.tuples(st.integers(0, 2), st.integers(0, 13)),
    buffer=st.integers(0, 15),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_a_stream_started_at_any_position_gives_what_the_whole_one_gives_from_there(
    texts: list[str], at: tuple[int, int], buffer: int, epochs: int, seed: int
) -> None:
    settings: dict[str, Any] = {"shuffle_buffer": buffer, "epochs": epochs, "seed": seed}
    start = Position(at[0], min(at[1], len(texts)))
    whole = list(stream(texts, **settings))
    assert [position for _, position in whole] == sorted(position for _, position in whole)
    assert list(stream(texts, start=start, **settings)) == [pair for pair in whole if pair[1] > start]


@given(texts=corpora(), stops=st.lists(st.integers(1, 5), max_size=8), buffer=st.integers(0, 15))
def test_a_stream_that_is_stopped_and_resumed_again_and_again_is_the_whole_one(
    texts: list[str], stops: list[int], buffer: int
) -> None:
    seen: list[tuple[Window, Position]] = []
    for taken in stops:
        start = seen[-1][1] if seen else None
        seen += islice(stream(texts, start=start, shuffle_buffer=buffer), taken)
    start = seen[-1][1] if seen else None
    assert [*seen, *stream(texts, start=start, shuffle_buffer=buffer)] == list(stream(texts, shuffle_buffer=buffer))


def test_the_way_to_a_position_is_not_tokenised_and_earlier_epochs_are_not_read() -> None:
    config = DataConfig(path="here", prefix_tokens=4, suffix_tokens=2, epochs=3)
    passes, encoded = [], []

    def read(_: DataConfig, epoch: int) -> Iterator[Document]:
        passes.append(1)
        return documents(["abcdef"] * 10)

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return [ord(letter) for letter in text]

    windows = WindowStream(config, encode, start=Position(2, 7), documents=read)
    assert [window.id for window, _ in windows] == ["2-7", "2-8", "2-9"]
    assert (len(passes), len(encoded)) == (1, 3)


def test_fewer_documents_than_a_position_counts_are_an_error() -> None:
    with pytest.raises(DocumentError, match=r"holds 7 documents, and the run that is resumed had taken 8"):
        list(stream(TEXTS, start=Position(0, 8)))


def test_documents_that_are_all_too_short_are_an_error_that_names_the_sizes() -> None:
    with pytest.raises(DocumentError, match=r"no document has 3 tokens; lower data\.suffix_tokens"):
        list(stream(["ab", "c"]))
