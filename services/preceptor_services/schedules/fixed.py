"""Schedules whose pairs are known from the start: one round. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from preceptor_client.contract import Order
from preceptor_services.schedules.comparisons import Standing, standings
from preceptor_services.schedules.tournament import Pair, Tournament


class Fixed(Tournament):
    """Asks the given pairs, all at once."""

    def __init__(self, pairs: Sequence[Pair], copies: Sequence[int], *, order: Order, seed: int) -> None:
        super().__init__(copies, order=order, seed=seed)
        self._pairs = list(pairs)

    def next_pairs(self) -> list[Pair]:
        """All of them, then none."""
        return [] if self._outcomes else self._pairs


class AllPairs(Fixed):
    """Every pair. The score is the win rate as it was counted."""

    def __init__(self, copies: Sequence[int], *, order: Order, seed: int) -> None:
        super().__init__(list(combinations(range(len(copies)), 2)), copies, order=order, seed=seed)

    def standings(self) -> list[Standing]:
        """How every distinct text fared; the scores are win rates over the usable pairs."""
        return standings(self._copies, self._outcomes)


def pivot_pairs(count: int, pivot: int) -> list[Pair]:
    """Every text against one. Raises ValueError if that one does not exist."""
    if not 0 <= pivot < count:
        raise ValueError(f"pivot: there is no text {pivot} among {count}")
    return [(pivot, other) for other in range(count) if other != pivot]


def ring_pairs(texts: Sequence[int]) -> list[Pair]:
    """Each text against the next, the last against the first."""
    if len(texts) < 3:
        return list(combinations(texts, 2))
    return [(texts[place - 1], text) for place, text in enumerate(texts)]
