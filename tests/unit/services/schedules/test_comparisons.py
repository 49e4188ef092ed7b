from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.schedules import Comparison, Outcome, Unanswered, distinct, position_bias, position_consistency
from preceptor_services.schedules.comparisons import pair_score, pair_scores, standings

scores = st.sampled_from([1.0, 0.5, 0.0])
outcome = st.one_of(scores, st.sampled_from(Unanswered))


@st.composite
def judged(draw: st.DrawFn, outcomes: st.SearchStrategy[Outcome]) -> tuple[list[int], dict[Comparison, Outcome]]:
    copies = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    return copies, {pair: draw(outcomes) for pair in permutations(range(len(copies)), 2)}


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8))
def test_distinct_texts_stand_in_order_and_give_every_text_back(texts: list[str]) -> None:
    unique, places = distinct(texts)
    assert [unique[place] for place in places] == texts
    assert len(set(unique)) == len(unique)


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


def test_a_pair_asked_in_one_order_has_that_orders_outcome() -> None:
    assert pair_scores({(2, 0): 1.0, (1, 2): Unanswered.FAILED}) == {(2, 0): 1.0, (0, 2): 0.0}


@given(judged(scores))
def test_win_rates_of_a_fully_answered_cohort_sum_to_half_its_number(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    copies, outcomes = case
    found = standings(copies, outcomes)
    total = sum(copies)
    assert sum(s.score * n for s, n in zip(found, copies, strict=True) if s.score is not None) == pytest.approx(
        total / 2
    )
    assert all(s.won + s.lost + s.tied == total - 1 for s in found)


@given(judged(outcome), st.randoms(use_true_random=False))
def test_renaming_texts_changes_no_standing(case: tuple[list[int], dict[Comparison, Outcome]], random: object) -> None:
    copies, outcomes = case
    new = list(range(len(copies)))
    random.shuffle(new)  # type: ignore[attr-defined]
    renamed = standings(
        [copies[new.index(place)] for place in range(len(new))], {(new[i], new[j]): o for (i, j), o in outcomes.items()}
    )
    assert [renamed[new[text]] for text in range(len(copies))] == standings(copies, outcomes)


@given(judged(scores))
def test_judging_equal_texts_once_gives_what_comparing_every_candidate_gives(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    copies, outcomes = case
    places = [text for text, count in enumerate(copies) for _ in range(count)]
    every: dict[Comparison, Outcome] = {
        (k, m): 0.5 if places[k] == places[m] else outcomes[places[k], places[m]]
        for k, m in permutations(range(len(places)), 2)
    }
    by_candidate = [s.score for s in standings([1] * len(places), every)]
    assert by_candidate == [standings(copies, outcomes)[place].score for place in places]


@given(judged(outcome))
def test_a_score_needs_one_pair_answered_in_both_orders(case: tuple[list[int], dict[Comparison, Outcome]]) -> None:
    copies, outcomes = case
    for me, standing in enumerate(standings(copies, outcomes)):
        usable = [
            other
            for other in range(len(copies))
            if other != me
            and not isinstance(outcomes[me, other], Unanswered)
            and not isinstance(outcomes[other, me], Unanswered)
        ]
        assert (standing.score is not None) == bool(usable or len(copies) == 1)
        assert standing.score is None or 0 <= standing.score <= 1


def test_a_teacher_that_always_prefers_the_first_place_ranks_nobody() -> None:
    outcomes: dict[Comparison, Outcome] = dict.fromkeys(permutations(range(4), 2), 1.0)
    assert [s.score for s in standings([1] * 4, outcomes)] == [0.5] * 4
    assert position_consistency(outcomes) == 0
    assert position_bias(outcomes) == 1


def test_a_win_rate_is_the_mean_over_opponents() -> None:
    outcomes: dict[Comparison, Outcome] = {
        (0, 1): 1.0, (1, 0): 0.0,  # 0 beats 1
        (0, 2): 1.0, (2, 0): 1.0,  # the first place wins: a tie
        (1, 2): Unanswered.FAILED, (2, 1): 1.0,  # unusable
    }  # fmt: skip
    first, second, third = standings([1, 1, 1], outcomes)
    assert (first.score, first.won, first.tied) == (0.75, 1, 1)
    assert (second.score, second.lost, second.failed) == (0.0, 1, 1)
    assert (third.score, third.tied, third.failed) == (0.5, 1, 1)
    assert position_consistency(outcomes) == 0.5


@given(judged(outcome))
def test_position_consistency_is_the_share_of_answered_pairs_that_agree(
    case: tuple[list[int], dict[Comparison, Outcome]],
) -> None:
    copies, outcomes = case
    answered = [
        (a, b)
        for i, j in combinations(range(len(copies)), 2)
        if not isinstance(a := outcomes[i, j], Unanswered) and not isinstance(b := outcomes[j, i], Unanswered)
    ]
    expected = sum(a + b == 1 for a, b in answered) / len(answered) if answered else None
    assert position_consistency(outcomes) == expected


@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_a_judge_that_looks_at_quality_alone_has_no_position_bias(count: int, random: object) -> None:
    rank = list(range(count))
    random.shuffle(rank)  # type: ignore[attr-defined]
    outcomes: dict[Comparison, Outcome] = {(i, j): float(rank[i] < rank[j]) for i, j in permutations(range(count), 2)}
    assert position_bias(outcomes) == 0


def test_position_bias_is_the_lead_of_the_first_place_among_the_answered() -> None:
    assert position_bias({(0, 1): 1.0, (1, 0): 1.0, (0, 2): 0.0, (2, 0): 0.5, (1, 2): Unanswered.FAILED}) == 0.25
    assert position_bias({(0, 1): Unanswered.UNREADABLE}) is None
