from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice, zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.data.mixture import turns
from preceptor_trainer.data.reading import in_turn


@given(lengths=st.lists(st.integers(0, 600), min_size=1, max_size=4))
def test_items_come_in_turn_whichever_iterator_is_faster(lengths: list[int]) -> None:
    lists = [[(place, number) for number in range(length)] for place, length in enumerate(lengths)]
    expected = [item for row in zip_longest(*lists) for item in row if item is not None]
    assert list(in_turn([iter(each) for each in lists])) == expected


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def breaks() -> Iterator[str]:
        yield "b0"
        raise ValueError("broken")

    items = in_turn([iter(["a0", "a1", "a2"]), breaks()])
    assert list(islice(items, 3)) == ["a0", "b0", "a1"]
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_closing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    items = in_turn([count(), count()])
    assert next(items) == 0
    readers = set(threading.enumerate()) - before
    assert len(readers) == 2
    items.close()
    for reader in readers:
        reader.join(5)
        assert not reader.is_alive()


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), n=st.integers(1, 400))
def test_every_source_gets_its_share_at_any_time(weights: list[float], n: int) -> None:
    had = Counter(islice(turns(weights), n))
    for place, weight in enumerate(weights):
        assert abs(had[place] - n * weight / sum(weights)) < len(weights)
    assert Counter(islice(turns(weights), n)) == had
