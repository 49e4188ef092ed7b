from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.scoring.layout import lay_out, scored, segments
from preceptor_trainer.scoring.tree import Rectangle

TOKENS = st.integers(0, 5)
PAIRS = st.lists(
    st.tuples(st.lists(TOKENS, min_size=1, max_size=4), st.lists(TOKENS, max_size=4)), min_size=1, max_size=8
).filter(lambda pairs: any(suffix for _, suffix in pairs))


@given(PAIRS)
def test_what_a_place_sees_spells_its_own_sequence(pairs: list[tuple[list[int], list[int]]]) -> None:
    layout = lay_out(*zip(*pairs, strict=True))
    own_N, shared_N = segments(layout)
    start = layout.shared
    lengths = [length for own in layout.suffixes for length in own]
    for pair, length in zip(layout.pairs, lengths, strict=True):
        end = start + length - 1
        seen = (torch.arange(len(layout.ids)) <= end) & ((own_N == own_N[end]) | (own_N == shared_N[end]))
        places = seen.nonzero().flatten().tolist()
        assert [layout.ids[place] for place in places] == pairs[pair][0] + pairs[pair][1]
        assert [layout.positions[place] for place in places] == list(range(len(places)))
        start += length


@given(PAIRS)
def test_a_prefix_is_laid_out_once_and_nothing_is_padded(pairs: list[tuple[list[int], list[int]]]) -> None:
    layout = lay_out(*zip(*pairs, strict=True))
    prefixes = {tuple(prefix) for prefix, suffix in pairs if suffix}
    assert len(layout.ids) == sum(map(len, prefixes)) + sum(len(suffix) for _, suffix in pairs)
    assert sorted(layout.pairs) == [number for number, (_, suffix) in enumerate(pairs) if suffix]
    assert layout.prefixes == sorted(map(len, prefixes))
    assert layout.longest == max(len(prefix) + len(suffix) for prefix, suffix in pairs if suffix)


@given(PAIRS)
def test_every_suffix_token_is_predicted_where_the_one_before_it_is(pairs: list[tuple[list[int], list[int]]]) -> None:
    layout = lay_out(*zip(*pairs, strict=True))
    width = max(len(suffix) for _, suffix in pairs)
    wanted = scored(layout, width)
    assert wanted.rows_M.tolist() == sorted(wanted.rows_M.tolist())
    assert len(set(wanted.places_R.tolist())) == len(wanted.places_R)
    cells = {}
    for row, target, cell in zip(wanted.rows_M, wanted.targets_M.tolist(), wanted.cells_M.tolist(), strict=True):
        place = int(wanted.places_R[row])
        cells[cell] = (layout.ids[place], layout.positions[place], target)
    assert cells == {
        number * width + step: ((prefix + suffix)[len(prefix) + step - 1], len(prefix) + step - 1, token)
        for number, (prefix, suffix) in enumerate(pairs)
        for step, token in enumerate(suffix)
    }


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_rectangle_gives_its_runs_back_and_has_zeros_beside_them(lengths: list[int]) -> None:
    rectangle = Rectangle.of(lengths)
    runs_NHX = torch.arange(1.0, sum(lengths) * 6 + 1).view(-1, 3, 2)
    folded_RHWX = rectangle.fold(runs_NHX)
    torch.testing.assert_close(rectangle.unfold(folded_RHWX), runs_NHX, rtol=0, atol=0)
    for row, length in enumerate(lengths):
        assert not folded_RHWX[row, :, length:].any()
        assert folded_RHWX[row, :, :length].all()


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix"):
        lay_out([[], [1]], [[1], [2]])
