"""Which candidates are compared, and what the comparisons add up to. Pure.

    texts -> distinct texts -> comparisons (first, second) -> outcomes -> standings, one per candidate

In: the cohort's texts, then one outcome per comparison. Out: a `Standing` per candidate, in the cohort's order.
Guarantees: every pair is put in both orders, so that a teacher that likes the first place wins nothing by it; two
orders that disagree are a tie; a pair with an order unanswered counts for neither side. Candidates with the same text
are judged once and share the result, which is what all pairs would have given with equal texts tied; renaming or
reordering the candidates changes no score, and over a fully answered cohort the scores sum to half their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Comparison = tuple[int, int]
"""Indices of two distinct texts, in the order in which the teacher sees them."""


class Unanswered(Enum):
    """Why a comparison has no outcome."""

    UNREADABLE = "the answer named no verdict"
    FAILED = "the call brought no answer"


Outcome = float | Unanswered
"""1, 0.5 or 0 for the text shown first, or why there is none."""


@dataclass(frozen=True)
class Standing:
    """How one candidate fared. `score` is its win rate, the mean of 1 / 0.5 / 0 over its opponents; None without a
    usable pair."""

    score: float | None
    won: int
    lost: int
    tied: int
    unreadable: int
    failed: int


def distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in order of first appearance, and for every text its place among them."""
    places: dict[str, int] = {}
    indices = [places.setdefault(text, len(places)) for text in texts]
    return list(places), indices


def all_pairs(count: int) -> list[Comparison]:
    """Every pair of `count` texts in both orders; those with the same first text stand together and share a prompt
    prefix."""
    return [(first, second) for first in range(count) for second in range(count) if first != second]


def tally(indices: Sequence[int], outcomes: Mapping[Comparison, Outcome]) -> list[Standing]:
    """The standing of every candidate; `indices` says which distinct text each one has (see `distinct`)."""
    copies: dict[int, int] = {}
    for index in indices:
        copies[index] = copies.get(index, 0) + 1
    standings = {index: _standing(index, copies, outcomes) for index in copies}
    return [standings[index] for index in indices]


def _standing(me: int, copies: Mapping[int, int], outcomes: Mapping[Comparison, Outcome]) -> Standing:
    won = lost = unreadable = failed = 0
    tied = copies[me] - 1
    judged = 0
    for other in copies:
        if other == me:
            continue
        answers = (outcomes[me, other], outcomes[other, me])
        unreadable += answers.count(Unanswered.UNREADABLE)
        failed += answers.count(Unanswered.FAILED)
        result = pair_score(*answers)
        if result is None:
            continue
        judged += copies[other]
        won += copies[other] * (result == 1)
        lost += copies[other] * (result == 0)
        tied += copies[other] * (result == 0.5)
    if len(copies) == 1:
        score: float | None = 0.5
    else:
        score = (won + 0.5 * tied) / (won + lost + tied) if judged else None
    return Standing(score, won, lost, tied, unreadable, failed)


def pair_score(shown_first: Outcome, shown_second: Outcome) -> float | None:
    """1, 0.5 or 0 for a text, from the comparison that shows it first and the one that shows it second."""
    if isinstance(shown_first, Unanswered) or isinstance(shown_second, Unanswered):
        return None
    return shown_first if shown_first == 1 - shown_second else 0.5


def position_consistency(outcomes: Mapping[Comparison, Outcome]) -> float | None:
    """Share of the pairs answered in both orders whose two orders agree; None if there is no such pair."""
    agreeing = [
        first == 1 - second
        for (i, j), first in outcomes.items()
        if i < j and isinstance(first, float) and isinstance(second := outcomes[j, i], float)
    ]
    return sum(agreeing) / len(agreeing) if agreeing else None


class Tournament:
    def __init__(self, copies: Sequence[int]) -> None:
        self._copies = copies
        self._todo = all_pairs(len(copies))
        self.outcomes: dict[Comparison, Outcome] = {}

    def next_round(self) -> list[Comparison]:
        todo, self._todo = self._todo, []
        return todo

    def record(self, outcomes: Mapping[Comparison, Outcome]) -> None:
        self.outcomes.update(outcomes)

    def standings(self) -> list[Standing]:
        flat = [i for i, c in enumerate(self._copies) for _ in range(c)]
        return [tally(flat, self.outcomes)[flat.index(i)] for i in range(len(self._copies))]


def tournament(schedule: object, copies: Sequence[int], *, order: object, seed: int, pivot: int = 0) -> Tournament:
    return Tournament(copies)


def position_bias(outcomes: Mapping[Comparison, Outcome]) -> float | None:
    answered = [o for o in outcomes.values() if isinstance(o, float)]
    return sum((o == 1) - (o == 0) for o in answered) / len(answered) if answered else None
