from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.schedules import (
    Comparison,
    Outcome,
    Unanswered,
    all_pairs,
    distinct,
    pair_score,
    position_consistency,
    tally,
)

texts_of_a_cohort = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8)
scores = st.sampled_from([1.0, 0.5, 0.0])
outcome = st.one_of(scores, st.sampled_from(Unanswered))


@st.composite
def judged(draw: st.DrawFn, outcomes: st.SearchStrategy[Outcome]) -> tuple[list[int], dict[Comparison, Outcome]]:
    texts, places = distinct(draw(texts_of_a_cohort))
    return places, {pair: draw(outcomes) for pair in all_pairs(len(texts))}


@given(texts_of_a_cohort)
def test_distinct_texts_stand_in_order_and_give_every_text_back(texts: list[str]) -> None:
    unique, places = distinct(texts)
    assert [unique[place] for place in places] == texts
    assert len(set(unique)) == len(unique)


@given(st.integers(0, 12))
def test_every_pair_is_compared_once_in_each_order(count: int) -> None:
    pairs = all_pairs(count)
    assert len(set(pairs)) == len(pairs) == count * (count - 1)
    assert {(j, i) for i, j in pairs} == set(pairs)
    assert pairs == sorted(pairs)


@given(outcome, outcome)
def test_the_two_sides_of_a_pair_always_sum_to_one(first: Outcome, second: Outcome) -> None:
    mine, theirs = pair_score(first, second), pair_score(second, first)
    assert (mine is None) == (theirs is None)
    if mine is not None and theirs is not None:
        assert mine + theirs == 1


@pytest.mark.parametrize(
    ("shown_first", "shown_second", "score"),
    [(1, 0, 1), (0, 1, 0), (0.5, 0.5, 0.5), (1, 1, 0.5), (0, 0, 0.5), (1, 0.5, 0.5), (0.5, 0, 0.5)],
)
def test_orders_that_disagree_are_a_tie(shown_first: float, shown_second: float, score: float) -> None:
    assert pair_score(shown_first, shown_second) == score


@given(judged(scores))
def test_scores_of_a_fully_answered_cohort_sum_to_half_its_number(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    standings = tally(*case)
    assert sum(s.score for s in standings if s.score is not None) == pytest.approx(len(standings) / 2)
    assert all(s.won + s.lost + s.tied == len(standings) - 1 for s in standings)


@given(judged(scores), st.randoms())
def test_the_order_of_candidates_changes_no_score(
    case: tuple[list[int], dict[Comparison, Outcome]], random: object
) -> None:
    places, outcomes = case
    order = list(range(len(places)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = tally([places[k] for k in order], outcomes)
    assert shuffled == [tally(places, outcomes)[k] for k in order]


@given(judged(scores))
def test_judging_equal_texts_once_gives_what_comparing_every_candidate_gives(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    places, outcomes = case
    every = {
        (k, m): 0.5 if places[k] == places[m] else outcomes[places[k], places[m]] for k, m in all_pairs(len(places))
    }
    assert [s.score for s in tally(places, outcomes)] == [s.score for s in tally(range(len(places)), every)]


@given(judged(outcome))
def test_a_score_needs_one_pair_answered_in_both_orders(case: tuple[list[int], dict[Comparison, Outcome]]) -> None:
    places, outcomes = case
    if len(set(places)) == 1:
        assert {s.score for s in tally(places, outcomes)} == {0.5}
        return
    for me, standing in zip(places, tally(places, outcomes), strict=True):
        usable = [
            other
            for other in set(places) - {me}
            if not isinstance(outcomes[me, other], Unanswered) and not isinstance(outcomes[other, me], Unanswered)
        ]
        assert (standing.score is not None) == bool(usable)
        assert standing.score is None or 0 <= standing.score <= 1


def test_a_teacher_that_always_prefers_the_first_place_ranks_nobody() -> None:
    outcomes: dict[Comparison, Outcome] = dict.fromkeys(all_pairs(4), 1.0)
    assert [s.score for s in tally(range(4), outcomes)] == [0.5] * 4
    assert position_consistency(outcomes) == 0


def test_a_win_rate_is_the_mean_over_opponents() -> None:
    outcomes: dict[Comparison, Outcome] = {
        (0, 1): 1.0, (1, 0): 0.0,  # 0 beats 1
        (0, 2): 1.0, (2, 0): 1.0,  # the first place wins: a tie
        (1, 2): Unanswered.FAILED, (2, 1): 1.0,  # unusable
    }  # fmt: skip
    first, second, third = tally([0, 1, 2], outcomes)
    assert (first.score, first.won, first.tied) == (0.75, 1, 1)
    assert (second.score, second.lost, second.failed) == (0.0, 1, 1)
    assert (third.score, third.tied, third.failed) == (0.5, 1, 1)
    assert position_consistency(outcomes) == 0.5


@given(judged(outcome))
def test_position_consistency_is_the_share_of_answered_pairs_that_agree(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    places, outcomes = case
    answered = [
        (a, b)
        for i, j in combinations(sorted(set(places)), 2)
        if not isinstance(a := outcomes[i, j], Unanswered) and not isinstance(b := outcomes[j, i], Unanswered)
    ]
    expected = sum(a + b == 1 for a, b in answered) / len(answered) if answered else None
    assert position_consistency(outcomes) == expected
