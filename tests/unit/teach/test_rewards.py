from __future__ import annotations

from itertools import product
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.teach.rewards import RepairWeights, both_orders, copied, faithfulness, length, repaired

texts = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)
shares = st.floats(0, 1)
WEIGHTS = RepairWeights(faithfulness=0.5, length=0.5)


def test_a_verdict_earns_nothing_where_the_other_order_is_never_right() -> None:
    assert both_orders([True, False], [False, False]) == ([0.0, 0.0], [0.0, 0.0])
    assert both_orders([True, True], [True, True]) == ([1.0, 1.0], [1.0, 1.0])


def test_the_worse_order_is_worth_more() -> None:
    often, seldom = both_orders([True, True, True, False], [True, False, False, False])
    assert max(seldom) > max(often) > 0


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.lists(st.booleans(), min_size=1, max_size=6))
def test_the_reward_is_the_mean_over_all_ways_to_pair_answers(first: list[bool], second: list[bool]) -> None:
    rewards, _ = both_orders(first, second)
    assert fmean(rewards) == pytest.approx(fmean(a and b for a, b in product(first, second)))


def test_a_copy_is_word_for_word() -> None:
    assert copied(" the  same\nwords", "the same words ") == 1
    assert copied("the same word", "the same words") == 0
    assert copied("The same words", "the same words") == 0


@given(texts, texts)
def test_likeness_is_a_share_and_the_same_both_ways(one: str, other: str) -> None:
    for measure in (faithfulness, length):
        assert 0 <= measure(one, other) <= 1
        assert measure(one, other) == measure(other, one)
        assert measure(one, one) == 1


def test_order_counts_for_faithfulness() -> None:
    assert faithfulness("a b c d", "a b c d") > faithfulness("d c b a", "a b c d") > faithfulness("x y z", "a b c d")


@given(texts, texts, shares, shares)
def test_a_repair_earns_between_nothing_and_one(text: str, suffix: str, quality: float, safety: float) -> None:
    reward = repaired(text, suffix, quality=quality, safety=safety, weights=WEIGHTS)
    assert reward is not None
    assert 0 <= reward <= 1


def test_a_repair_is_weighed_as_it_says() -> None:
    reward = repaired("a b", "a b c d", quality=1.0, safety=0.5, weights=WEIGHTS)
    assert reward == pytest.approx((0.75 + 0.5 * 0.6 + 0.5 * 0.5) / 2)
    assert repaired("a", "b", quality=1.0, safety=0.5, weights=RepairWeights(0, 0)) == 0.75


def test_without_a_judgement_there_is_no_reward() -> None:
    assert repaired("a b", "a b", quality=None, safety=1.0, weights=WEIGHTS) is None
    assert repaired("a b", "a b", quality=1.0, safety=None, weights=WEIGHTS) is None


def test_nothing_written_is_worth_nothing() -> None:
    assert repaired(" ", "a b", quality=None, safety=None, weights=WEIGHTS) == 0
