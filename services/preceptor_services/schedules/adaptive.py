"""Comparisons where best and worst are still in doubt. Pure.

    a ring of all texts -> beliefs -> the pairs likeliest to hold the best two, or the worst two -> beliefs -> ...

In: a budget of comparisons. Out: at most `_ROUNDS` rounds of pairs. Guarantees: the budget is kept; it ends before it
is spent if best and worst are decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import ceil

import numpy as np

from preceptor_client.contract import Order
from preceptor_services.schedules.beliefs import Floats
from preceptor_services.schedules.fixed import ring_pairs
from preceptor_services.schedules.tournament import Pair, Tournament, orders

_ROUNDS = 6
"""The ring, and five that follow it: more and smaller rounds find no more."""
_DECIDED = 0.98
"""The probability of being better, or worse, than each of the others that settles it."""


class Adaptive(Tournament):
    """Spends its budget between the texts that may be the best, and between those that may be the worst."""

    def __init__(self, copies: Sequence[int], *, order: Order, seed: int, budget: int | None = None) -> None:
        super().__init__(copies, order=order, seed=seed)
        if budget is not None and budget < orders(order):
            raise ValueError(f"budget: {budget} comparisons are not enough for one pair")
        self._left = (default_budget(self.count, order) if budget is None else budget) // orders(order)
        self._rounds_left = _ROUNDS

    def next_pairs(self) -> list[Pair]:
        """The ring, then those whose outcome says most, until all is decided or spent."""
        if not self._outcomes:
            pairs = ring_pairs(self.drawn())[: self._left]
        elif self._left and self._rounds_left:
            pairs = self._doubtful(ceil(self._left / self._rounds_left))
        else:
            pairs = []
        self._left -= len(pairs)
        self._rounds_left -= 1
        return pairs

    def _doubtful(self, most: int) -> list[Pair]:
        beliefs = self.beliefs()
        if _decided(beliefs.better, beliefs.best) and _decided(beliefs.better.T, beliefs.worst):
            return []
        value = np.outer(beliefs.best, beliefs.best) + np.outer(beliefs.worst, beliefs.worst)
        open_pairs = [pair for pair in combinations(range(self.count), 2) if not self.met(*pair)]
        return sorted(open_pairs, key=lambda pair: -value[pair])[:most]


def _decided(ahead: Floats, first: Floats) -> bool:
    """Whether the text likeliest to be the first is ahead of each of the others."""
    return bool(np.delete(ahead[(leader := first.argmax())], leader).min() >= _DECIDED)


def default_budget(count: int, order: Order) -> int:
    """A quarter of the comparisons that all pairs in both orders take, but no more than grow with the number of texts:
    four a text. For few texts, enough for twice as many pairs as finding best and worst takes when nobody errs."""
    every_pair = count * (count - 1) // 2
    return max(min(every_pair // 2, 4 * count - 4), orders(order) * min(2 * count - 2, every_pair))
