"""Against the judge service itself, which the trainer must not import."""

from __future__ import annotations

from random import Random

import pytest

from preceptor_client.contract import Order, ScheduleName
from preceptor_services.rubrics import load_rubrics
from preceptor_services.schedules import tournament
from preceptor_trainer.planning.calls import Asked, comparisons, pairwise, pointwise
from preceptor_trainer.planning.models import Span
from preceptor_trainer.planning.settings import AxisCost, PlanSettings

BOUNDS = {ScheduleName.SWISS, ScheduleName.ADAPTIVE}


def asked(schedule: ScheduleName, candidates: int, order: Order, seed: int) -> int:
    """By a judge that tosses a coin, which no schedule can make out early."""
    dice = Random(seed)
    contest = tournament(schedule, [1] * candidates, order=order, seed=seed)
    while pairs := contest.next_round():
        contest.record({pair: dice.choice((0.0, 1.0)) for pair in pairs})
    return len(contest.outcomes)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_as_many_comparisons_are_reckoned_as_the_service_makes(schedule: ScheduleName, order: Order) -> None:
    for candidates in (2, 3, 4, 7, 8, 16, 18, 25):
        made = max(asked(schedule, candidates, order, seed) for seed in range(4))
        reckoned = comparisons(schedule, candidates, order)
        if schedule in BOUNDS:
            assert 0.6 * reckoned <= made <= reckoned
        else:
            assert made == reckoned


def test_pairs_read_what_they_share_once() -> None:
    axis = AxisCost(mode="pairwise", instructions=10, completion=7)
    assert pairwise(axis, prefix=100, suffix=5, candidates=3, calls=6, votes=2) == Asked(
        calls=6,
        sent=6 * (10 + 100 + 5 + 5),
        read=(Span(1, 110), Span(3, 5, 110), Span(6, 5, 115, logits=1)),
        written=Span(12, 7, 120, logits=7),
    )


def test_a_pointwise_axis_asks_once_a_candidate_and_shows_what_it_needs() -> None:
    alone = pointwise(AxisCost(instructions=10, shows_prefix=False), prefix=100, suffix=5, candidates=3, votes=1)
    compared = pointwise(AxisCost(instructions=10, shows_reference=True), prefix=100, suffix=5, candidates=3, votes=1)
    assert (alone.calls, alone.sent) == (3, 3 * (10 + 5))
    assert (compared.calls, compared.sent) == (3, 3 * (10 + 100 + 5 + 5))


@pytest.mark.parametrize("axis", ["quality", "safety", "factuality"])
def test_the_instructions_are_as_long_as_those_of_the_packaged_rubrics(axis: str) -> None:
    """A token of English is four to five characters to any tokenizer of today."""
    book = load_rubrics("instruct")
    rubric = book.choose(axis, None)
    pairs = rubric.spec.mode == "pairwise"
    shown = {"a": "", "b": ""} if pairs else {"candidate": ""}
    prompt = rubric.render(prefix="", reference="", fence="f" * 8, **shown)
    cost = PlanSettings().axis(axis)
    characters = len(prompt.text) + len(prompt.system or "")
    assert cost.mode == ("pairwise" if pairs else "pointwise")
    assert 3.8 < characters / cost.instructions < 5.2
