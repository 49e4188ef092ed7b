from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, permutations
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor_client.contract import Order, ScheduleName
from preceptor_services.schedules import Comparison, Outcome, Tournament, Unanswered, tournament
from preceptor_services.schedules.adaptive import default_budget

every_schedule = st.sampled_from(ScheduleName)
every_order = st.sampled_from(Order)
numbers_of_copies = st.lists(st.integers(1, 3), min_size=1, max_size=9)
seeds = st.integers(0, 2**32)
OUTCOMES: list[Outcome] = [1.0, 0.5, 0.0, *Unanswered]
outcomes_in_turn = st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=60)


def play(contest: Tournament, answer: Callable[[int, int], Outcome]) -> list[list[Comparison]]:
    rounds = []
    while asked := contest.next_round():
        rounds.append(asked)
        contest.record({pair: answer(*pair) for pair in asked})
        assert len(rounds) < 100
    return rounds


def best_and_worst(contest: Tournament) -> tuple[int, int]:
    scores = [standing.score for standing in contest.standings()]
    known = [(score, text) for text, score in enumerate(scores) if score is not None]
    return max(known)[1], min(known)[1]


@given(every_schedule, every_order, numbers_of_copies, seeds, outcomes_in_turn)
@settings(deadline=None, max_examples=60)
def test_any_outcomes_end_it_with_valid_comparisons_none_twice_and_scores_within_bounds(
    schedule: ScheduleName, order: Order, copies: list[int], seed: int, outcomes: list[Outcome]
) -> None:
    contest = tournament(schedule, copies, order=order, seed=seed)
    answers = cycle(outcomes)
    rounds = play(contest, lambda i, j: next(answers))
    asked = [pair for one in rounds for pair in one]
    texts = range(len(copies))
    assert len(set(asked)) == len(asked)
    assert all(i in texts and j in texts and i != j for i, j in asked)
    assert all(one == sorted(one) for one in rounds)
    assert all(((j, i) in asked) == (order is Order.BOTH) for i, j in asked)
    assert set(contest.outcomes) == set(asked)
    for text, standing in enumerate(contest.standings()):
        assert standing.score is None or 0 <= standing.score <= 1
        own = [contest.outcomes[pair] for pair in asked if text in pair]
        assert standing.failed == own.count(Unanswered.FAILED)
        assert standing.unreadable == own.count(Unanswered.UNREADABLE)


@given(every_order, st.integers(1, 17), seeds, st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_number_of_calls_is_as_documented(order: Order, count: int, seed: int, ties: bool) -> None:
    each = 2 if order is Order.BOTH else 1
    pairs = count * (count - 1) // 2
    rounds = ceil(log2(count))

    def calls(schedule: ScheduleName) -> float:
        contest = tournament(schedule, [1] * count, order=order, seed=seed)
        play(contest, lambda i, j: 0.5 if ties else float(i < j))
        return len(contest.outcomes) / each

    assert calls(ScheduleName.ALL_PAIRS) == pairs
    assert calls(ScheduleName.PIVOT) == count - 1
    assert calls(ScheduleName.CIRCULAR) == (count if count > 2 else pairs)
    assert calls(ScheduleName.KNOCKOUT) == max(ceil(1.5 * count) - 2, 0)
    assert calls(ScheduleName.SWISS) <= (rounds + 2) * (count // 2)
    assert calls(ScheduleName.ADAPTIVE) <= default_budget(count, order) / each


@pytest.mark.parametrize("order", Order)
def test_twice_as_many_texts_cost_the_adaptive_schedule_about_twice_as_much(order: Order) -> None:
    assert all(default_budget(2 * count, order) < 2.1 * default_budget(count, order) for count in (16, 20, 32, 64))


@pytest.mark.parametrize("order", Order)
def test_sixteen_texts_cost_the_adaptive_schedule_a_quarter_of_all_pairs_in_at_most_six_rounds(order: Order) -> None:
    dice = Random(0)
    contest = tournament(ScheduleName.ADAPTIVE, [1] * 16, order=order, seed=1)
    rounds = play(contest, lambda i, j: float((i < j) != (dice.random() < 0.3)))
    assert len(contest.outcomes) == 60
    assert len(rounds) <= 6


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        (ScheduleName.ALL_PAIRS, (2, 3, 5, 8, 16)),
        (ScheduleName.KNOCKOUT, (2, 3, 4, 5, 7, 8, 11, 16)),
        (ScheduleName.SWISS, (2, 3, 4, 6, 8, 16)),
        (ScheduleName.ADAPTIVE, (2, 3, 4, 5, 8, 11, 16)),
    ],
)
def test_a_judge_that_never_errs_has_its_best_and_worst_found(
    schedule: ScheduleName, counts: tuple[int, ...], order: Order
) -> None:
    for count in counts:
        for seed in range(6):
            rank = Random(seed).sample(range(count), count)
            contest = tournament(schedule, [1] * count, order=order, seed=seed)
            play(contest, lambda i, j, rank=rank: float(rank[i] < rank[j]))  # type: ignore[misc]
            best, worst = best_and_worst(contest)
            assert (rank[best], rank[worst]) == (0, count - 1)


@given(every_schedule, every_order, numbers_of_copies, seeds)
@settings(deadline=None, max_examples=25)
def test_the_same_seed_and_outcomes_give_the_same_rounds_and_scores(
    schedule: ScheduleName, order: Order, copies: list[int], seed: int
) -> None:
    one, other = (tournament(schedule, copies, order=order, seed=seed) for _ in range(2))
    assert play(one, lambda i, j: float((i * 7 + j) % 3 > 0)) == play(other, lambda i, j: float((i * 7 + j) % 3 > 0))
    assert one.standings() == other.standings() == one.standings()


@given(numbers_of_copies, seeds, seeds, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_renaming_texts_changes_no_score_of_all_pairs_in_both_orders(
    copies: list[int], seed: int, other_seed: int, random: object
) -> None:
    new = list(range(len(copies)))
    random.shuffle(new)  # type: ignore[attr-defined]
    answers = {pair: float(hash(pair) % 3) / 2 for pair in permutations(range(len(copies)), 2)}
    one = tournament(ScheduleName.ALL_PAIRS, copies, order=Order.BOTH, seed=seed)
    play(one, lambda i, j: answers[i, j])
    renamed_copies = [copies[new.index(place)] for place in range(len(new))]
    other = tournament(ScheduleName.ALL_PAIRS, renamed_copies, order=Order.BOTH, seed=other_seed)
    play(other, lambda i, j: answers[new.index(i), new.index(j)])
    assert [other.standings()[place] for place in new] == one.standings()


@given(every_schedule, every_order, st.lists(st.integers(1, 3), min_size=2, max_size=10), seeds)
@settings(deadline=None, max_examples=25)
def test_expected_win_rates_sum_to_half_the_candidates_like_counted_ones(
    schedule: ScheduleName, order: Order, copies: list[int], seed: int
) -> None:
    dice = Random(seed)
    contest = tournament(schedule, copies, order=order, seed=seed)
    play(contest, lambda i, j: dice.choice([0.0, 0.5, 1.0]))
    weighed = [s.score * n for s, n in zip(contest.standings(), copies, strict=True) if s.score is not None]
    assert sum(weighed) == pytest.approx(sum(copies) / 2)


@pytest.mark.parametrize("schedule", ScheduleName)
@pytest.mark.parametrize("order", Order)
def test_a_single_text_is_asked_nothing_and_ties_with_its_copies(schedule: ScheduleName, order: Order) -> None:
    contest = tournament(schedule, [3], order=order, seed=0)
    assert contest.next_round() == []
    (standing,) = contest.standings()
    assert (standing.score, standing.won, standing.lost, standing.tied) == (0.5, 0, 0, 2)


@pytest.mark.parametrize("schedule", ScheduleName)
def test_a_teacher_that_answers_nothing_leaves_no_score(schedule: ScheduleName) -> None:
    contest = tournament(schedule, [1] * 6, order=Order.BOTH, seed=0)
    play(contest, lambda i, j: Unanswered.FAILED)
    assert all(standing.score is None and standing.failed > 0 for standing in contest.standings())


def test_a_pivot_is_in_every_pair() -> None:
    contest = tournament(ScheduleName.PIVOT, [1] * 5, order=Order.BOTH, seed=0, pivot=3)
    (asked,) = play(contest, lambda i, j: float(i < j))
    assert all(3 in pair for pair in asked)
    scores = [standing.score or 0 for standing in contest.standings()]
    assert scores[0] == scores[1] == scores[2] > scores[3] > scores[4]


def test_a_pivot_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="pivot: there is no text 5 among 5"):
        tournament(ScheduleName.PIVOT, [1] * 5, order=Order.BOTH, seed=0, pivot=5)


@given(st.integers(2, 40), st.integers(2, 12), every_order, seeds)
@settings(deadline=None, max_examples=25)
def test_a_budget_is_kept(budget: int, count: int, order: Order, seed: int) -> None:
    dice = Random(seed)
    contest = tournament(ScheduleName.ADAPTIVE, [1] * count, order=order, seed=seed, budget=budget)
    play(contest, lambda i, j: float(dice.random() < 0.5))
    assert len(contest.outcomes) <= budget


def test_a_budget_below_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="budget: 1 comparisons are not enough for one pair"):
        tournament(ScheduleName.ADAPTIVE, [1] * 5, order=Order.BOTH, seed=0, budget=1)


def test_the_adaptive_schedule_stops_when_best_and_worst_are_decided() -> None:
    contest = tournament(ScheduleName.ADAPTIVE, [1] * 16, order=Order.BOTH, seed=0, budget=240)
    play(contest, lambda i, j: float(i < j))
    assert best_and_worst(contest) == (0, 15)
    assert len(contest.outcomes) < 120


def test_outcomes_of_another_round_are_refused() -> None:
    contest = tournament(ScheduleName.KNOCKOUT, [1] * 4, order=Order.BOTH, seed=0)
    asked = contest.next_round()
    with pytest.raises(ValueError, match="not those of the comparisons"):
        contest.record(dict.fromkeys(asked[1:], 1.0))
    with pytest.raises(ValueError, match="not recorded"):
        contest.next_round()
