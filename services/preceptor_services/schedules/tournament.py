"""A schedule at work on one cohort: which comparisons are asked next, and what all of them say. Pure.

    next_round -> comparisons, all to be asked at once -> record(outcomes) -> next_round -> ... -> [] -> standings

In: how many candidates share each distinct text, the order in which pairs are shown, a seed. Out: rounds of
comparisons, then a `Standing` per distinct text. Guarantees: indices are valid; no comparison is asked twice; it ends
whatever the outcomes; the same seed and outcomes give the same rounds. What stays unanswered is used for nothing and
not asked again. Raises ValueError for outcomes of comparisons that the round did not ask, and for a round asked for
before the last one is recorded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random

from preceptor_client.contract import Order
from preceptor_services.schedules.beliefs import Beliefs, beliefs_from
from preceptor_services.schedules.comparisons import (
    Comparison,
    Outcome,
    Standing,
    Unanswered,
    pair_scores,
    standings,
)

Pair = tuple[int, int]
"""Two distinct texts, whichever is shown first."""


class Tournament(ABC):
    """What all schedules share; each one says which pairs come next."""

    def __init__(self, copies: Sequence[int], *, order: Order, seed: int) -> None:
        self._copies = copies
        self._order = order
        self._dice = Random(seed)
        self._outcomes: dict[Comparison, Outcome] = {}
        self._asked: frozenset[Comparison] = frozenset()
        self._beliefs: Beliefs | None = None
        self._heard = 0

    @property
    def count(self) -> int:
        """How many distinct texts there are."""
        return len(self._copies)

    @property
    def outcomes(self) -> Mapping[Comparison, Outcome]:
        """Of all comparisons so far."""
        return self._outcomes

    def next_round(self) -> list[Comparison]:
        """The comparisons to be asked now, together; none when all is done. Those with the same first text stand
        together and share a prompt prefix."""
        if self._asked:
            raise ValueError("the outcomes of the last round are not recorded")
        pairs = self.next_pairs() if self.count > 1 else []
        self._asked = frozenset(comparison for pair in pairs for comparison in self._shown(pair))
        return sorted(self._asked)

    def record(self, outcomes: Mapping[Comparison, Outcome]) -> None:
        """Take the outcomes of the round."""
        if outcomes.keys() != self._asked:
            raise ValueError("the outcomes are not those of the comparisons that the round asked")
        self._outcomes.update(outcomes)
        self._asked = frozenset()

    def standings(self) -> list[Standing]:
        """How every distinct text fared so far; the scores are expected win rates against the other candidates."""
        better = self.beliefs().better
        total = sum(self._copies)
        scores: list[float | None] = [
            float((better[me] @ self._copies - 0.5) / (total - 1)) if total > 1 else 0.5 for me in range(self.count)
        ]
        return standings(self._copies, self._outcomes, scores)

    @abstractmethod
    def next_pairs(self) -> list[Pair]:
        """The pairs of the next round, none of them met before; none when all is done."""

    def beliefs(self) -> Beliefs:
        """What the outcomes so far say of the order of the texts."""
        if self._beliefs is None or self._heard < len(self._outcomes):
            usable = pair_scores(self._outcomes)
            answers = {
                comparison: outcome
                for comparison, outcome in self._outcomes.items()
                if comparison in usable and not isinstance(outcome, Unanswered)
            }
            self._beliefs = beliefs_from(self.count, answers, self._beliefs)
            self._heard = len(self._outcomes)
        return self._beliefs

    def met(self, i: int, j: int) -> bool:
        """Whether the two have been compared, in whatever order and with whatever outcome."""
        return (i, j) in self._outcomes or (j, i) in self._outcomes

    def drawn(self) -> list[int]:
        """All texts, in an order by lot."""
        return self._dice.sample(range(self.count), self.count)

    def _shown(self, pair: Pair) -> list[Comparison]:
        i, j = pair
        if self._order is Order.BOTH:
            return [(i, j), (j, i)]
        return [(i, j) if self._dice.random() < 0.5 else (j, i)]


def orders(order: Order) -> int:
    """How many comparisons a pair takes."""
    return 2 if order is Order.BOTH else 1
