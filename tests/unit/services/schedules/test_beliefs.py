from __future__ import annotations

from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor_services.schedules.beliefs import Beliefs, Floats, beliefs_from


@st.composite
def answered(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], float]]:
    count = draw(st.integers(2, 8))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    return count, draw(st.dictionaries(pairs, st.sampled_from([0.0, 0.5, 1.0])))


def exactly(count: int, answers: dict[tuple[int, int], float], errors: tuple[float, float]) -> Floats:
    """Who is best, summed over all orders."""
    weights = np.zeros(count)
    for order in permutations(range(count)):
        weight = 1.0
        for (first, second), outcome in answers.items():
            right = (order.index(first) < order.index(second)) == (outcome == 1)
            error = errors[0] if order.index(first) < order.index(second) else errors[1]
            weight *= 1 - error if right else error
        weights[order[0]] += weight
    weights /= weights.sum()
    return weights


@given(answered())
@settings(deadline=None, max_examples=50)
def test_beliefs_are_probabilities_whatever_the_answers(case: tuple[int, dict[tuple[int, int], float]]) -> None:
    beliefs = beliefs_from(*case)
    assert np.isfinite(beliefs.better).all()
    assert np.allclose(beliefs.better + beliefs.better.T, 1)
    assert (beliefs.better >= 0).all()
    assert beliefs.best.sum() == pytest.approx(1)
    assert beliefs.worst.sum() == pytest.approx(1)
    assert all(0 < error < 0.5 for error in beliefs.errors)


@given(answered())
@settings(deadline=None, max_examples=50)
def test_the_opposite_of_every_answer_turns_the_order_round(
    case: tuple[int, dict[tuple[int, int], float]],
) -> None:
    count, answers = case
    straight, turned = beliefs_from(count, answers), beliefs_from(count, {p: 1 - o for p, o in answers.items()})
    assert np.allclose(straight.better, turned.better.T)
    assert np.allclose(straight.best, turned.worst)


def test_without_answers_or_with_ties_alone_nobody_is_better() -> None:
    for answers in ({}, dict.fromkeys(permutations(range(4), 2), 0.5)):
        beliefs = beliefs_from(4, answers)
        assert np.allclose(beliefs.better, 0.5)
        assert np.allclose(beliefs.best, 0.25)


def test_orders_that_contradict_one_another_say_nothing() -> None:
    assert np.allclose(beliefs_from(3, {(0, 1): 1.0, (1, 0): 1.0}).better, 0.5)


def test_a_chain_of_answers_reaches_texts_that_never_met() -> None:
    beliefs = beliefs_from(3, {(0, 1): 1.0, (1, 0): 0.0, (1, 2): 1.0, (2, 1): 0.0})
    assert beliefs.better[0, 2] > 0.9
    assert beliefs.best.argmax() == 0
    assert beliefs.worst.argmax() == 2


@pytest.mark.parametrize("seed", range(5))
def test_who_is_likeliest_the_best_is_so_by_the_sum_over_all_orders(seed: int) -> None:
    dice = Random(seed)
    answers = {pair: float((pair[0] < pair[1]) != (dice.random() < 0.2)) for pair in permutations(range(6), 2)}
    some = dict(dice.sample(sorted(answers.items()), 14))
    beliefs = beliefs_from(6, some)
    exact = exactly(6, some, beliefs.errors)
    assert exact[beliefs.best.argmax()] > exact.max() - 0.1


def test_the_error_rates_are_those_of_the_answers() -> None:
    dice = Random(3)
    answers = {pair: float((pair[0] < pair[1]) != (dice.random() < 0.2)) for pair in permutations(range(16), 2)}
    assert sum(beliefs_from(16, answers).errors) / 2 == pytest.approx(0.2, abs=0.06)


def test_a_liking_for_the_first_place_is_seen_in_the_error_rates() -> None:
    dice = Random(4)
    answers = {pair: float(pair[0] < pair[1] or dice.random() < 0.4) for pair in permutations(range(16), 2)}
    shown_first, shown_second = beliefs_from(16, answers).errors
    assert shown_first < 0.1
    assert shown_second == pytest.approx(0.4, abs=0.1)


def test_earlier_beliefs_lead_to_nearly_the_same() -> None:
    dice = Random(5)
    answers = {pair: float((pair[0] < pair[1]) != (dice.random() < 0.1)) for pair in permutations(range(10), 2)}
    some = dict(dice.sample(sorted(answers.items()), 40))
    earlier: Beliefs = beliefs_from(10, dict(sorted(some.items())[:34]))
    assert np.abs(beliefs_from(10, some, earlier).better - beliefs_from(10, some).better).max() < 0.05
