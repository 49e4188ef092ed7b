"""Schedules in rounds that follow who won: knockout and Swiss. Pure.

Where a pair is tied or unanswered, the lot that was drawn at the start decides who goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

from preceptor_client.contract import Order
from preceptor_services.schedules.comparisons import pair_scores
from preceptor_services.schedules.tournament import Pair, Tournament


class Knockout(Tournament):
    """A first round for all; then its winners play for the best, its losers for the worst. A text left over in the
    first round plays for both."""

    def __init__(self, copies: Sequence[int], *, order: Order, seed: int) -> None:
        super().__init__(copies, order=order, seed=seed)
        self._upper = self._lower = self.drawn()

    def next_pairs(self) -> list[Pair]:
        """Neighbours in both brackets."""
        if not self._outcomes:
            return _neighbours(self._upper)
        upper, lower = self._played(self._upper), self._played(self._lower)
        self._upper = [winner for winner, _ in upper]
        self._lower = [loser for _, loser in lower]
        return _neighbours(self._upper) + _neighbours(self._lower)

    def _played(self, bracket: Sequence[int]) -> list[Pair]:
        """Winner and loser of each of the bracket's pairs; a text left over is both, and paired first next time."""
        scores = pair_scores(self._outcomes)
        places = [(i, j) if scores.get((i, j), 0.5) >= 0.5 else (j, i) for i, j in _neighbours(bracket)]
        return [(left_over, left_over) for left_over in bracket[2 * len(places) :]] + places


def _neighbours(texts: Sequence[int]) -> list[Pair]:
    return list(zip(texts[::2], texts[1::2], strict=False))


class Swiss(Tournament):
    """Rounds between neighbours in standing who have not met: as many as halving the field to one takes, and at most
    two more while more than one text has not lost, or not won."""

    def __init__(self, copies: Sequence[int], *, order: Order, seed: int) -> None:
        super().__init__(copies, order=order, seed=seed)
        self._lot = self.drawn()
        self._round = 0

    def next_pairs(self) -> list[Pair]:
        """Pairs chosen from both ends of the standing inwards, so that who is left over stands in the middle."""
        wins, losses = self._wins_and_losses()
        rounds = ceil(log2(self.count))
        decided = losses.count(0) <= 1 and wins.count(0) <= 1
        if self._round >= (rounds if decided else rounds + 2):
            return []
        self._round += 1
        waiting = sorted(self._lot, key=lambda text: losses[text] - wins[text])
        pairs = []
        from_top = True
        while len(waiting) > 1:
            text = waiting.pop(0 if from_top else -1)
            others = waiting if from_top else waiting[::-1]
            other = next((other for other in others if not self.met(text, other)), None)
            if other is not None:
                waiting.remove(other)
                pairs.append((text, other))
            from_top = not from_top
        return pairs

    def _wins_and_losses(self) -> tuple[list[int], list[int]]:
        results = pair_scores(self._outcomes)
        wins = [0] * self.count
        losses = [0] * self.count
        for (i, _), score in results.items():
            wins[i] += score == 1
            losses[i] += score == 0
        return wins, losses
