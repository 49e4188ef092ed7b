"""Which candidates are compared, and what the comparisons add up to. Pure.

    copies of each distinct text -> tournament -> rounds of comparisons (first, second) -> outcomes -> standings

`comparisons` has the words and counts wins, `tournament` what all schedules share, `fixed`, `brackets` and `adaptive`
the schedules, `beliefs` what an incomplete set of fallible answers says. docs/schedules.md has them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

from preceptor_client.contract import Order, ScheduleName
from preceptor_services.schedules.adaptive import Adaptive
from preceptor_services.schedules.brackets import Knockout, Swiss
from preceptor_services.schedules.comparisons import (
    Comparison,
    Outcome,
    Standing,
    Unanswered,
    distinct,
    position_bias,
    position_consistency,
)
from preceptor_services.schedules.fixed import AllPairs, Fixed, pivot_pairs, ring_pairs
from preceptor_services.schedules.tournament import Tournament

__all__ = [
    "Comparison",
    "Outcome",
    "Standing",
    "Tournament",
    "Unanswered",
    "distinct",
    "position_bias",
    "position_consistency",
    "tournament",
]


def tournament(
    schedule: ScheduleName,
    copies: Sequence[int],
    *,
    order: Order,
    seed: int,
    pivot: int = 0,
    budget: int | None = None,
) -> Tournament:
    """A schedule for a cohort in which `copies[i]` candidates share the distinct text i. `seed` decides by lot;
    `pivot` is the text that the pivot schedule compares with, `budget` how many comparisons the adaptive one may ask.
    """
    count = len(copies)
    match schedule:
        case ScheduleName.ALL_PAIRS:
            return AllPairs(copies, order=order, seed=seed)
        case ScheduleName.PIVOT:
            return Fixed(pivot_pairs(count, pivot), copies, order=order, seed=seed)
        case ScheduleName.CIRCULAR:
            return Fixed(ring_pairs(range(count)), copies, order=order, seed=seed)
        case ScheduleName.KNOCKOUT:
            return Knockout(copies, order=order, seed=seed)
        case ScheduleName.SWISS:
            return Swiss(copies, order=order, seed=seed)
        case ScheduleName.ADAPTIVE:
            return Adaptive(copies, order=order, seed=seed, budget=budget)
