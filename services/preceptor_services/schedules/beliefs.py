"""What answers that may be wrong say of the order of the texts. Pure.

    answers -> the two error rates, and for every text a belief about its place -> who is better, best, worst

The model: the texts have a true order, every order alike at first. Whoever judges errs with one rate when the better
text is shown first, and with another when it is shown second, so a liking for a place is seen for what it is. Both
rates are fitted along, from a weak prior. A tie says nothing of the order.
In: the answers to any part of the comparisons. Out: `Beliefs`. Guarantees: numbers in [0, 1] for any answers, a fixed
number of steps, the same result for the same answers. Method: belief propagation over the graph of compared pairs, a
text's place being one of some tens of levels. It is approximate: who is best or worst is reckoned as if the texts'
places did not depend on one another, which understates how sure that is. docs/schedules.md has what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS, _MORE_STEPS = 10, 3
"""From nothing, and from the beliefs that a part of the answers gave."""
_DAMPING = 0.3
_LEVELS_PER_TEXT, _FEWEST_LEVELS, _MOST_LEVELS = 1.5, 16, 64
_PRIOR_ERRORS, _PRIOR_ANSWERS = 0.1, 5.0
"""As if five answers of each kind had been seen, a tenth of one of them wrong: few answers that agree are believed."""
_MOST_ERRORS = 0.48
"""Whoever judges is never taken to say the contrary of what is so."""


@dataclass(frozen=True)
class Beliefs:
    """`better[i, j]`: the probability that text i is better than text j. `best`, `worst`: that it is the one of all.
    `errors`: the rates at which a better text loses that is shown first, and one that is shown second. `pairs` and
    `messages` are where a later fit starts from."""

    better: Floats
    best: Floats
    worst: Floats
    errors: tuple[float, float]
    pairs: tuple[tuple[int, int], ...]
    messages: Floats


def beliefs_from(count: int, answers: Mapping[tuple[int, int], float], earlier: Beliefs | None = None) -> Beliefs:
    """Beliefs about `count` texts from outcomes by (shown first, shown second); `earlier`, from a part of them, saves
    time."""
    pairs = sorted({(min(pair), max(pair)) for pair in answers})
    graph = _Graph(count, pairs, _evidence(pairs, answers))
    if earlier is not None:
        graph.take_over(earlier)
    for _ in range(_STEPS if earlier is None else _MORE_STEPS):
        graph.step()
    return graph.beliefs()


def _evidence(pairs: list[tuple[int, int]], answers: Mapping[tuple[int, int], float]) -> Floats:
    """Per pair (i, j): how much i won and lost shown first, and how much j won and lost shown first."""

    def decided(first: int, second: int) -> tuple[float, float]:
        lead = 2 * answers.get((first, second), 0.5) - 1
        return max(lead, 0), max(-lead, 0)

    return np.array([decided(i, j) + decided(j, i) for i, j in pairs], dtype=float).reshape(-1, 4)


class _Graph:
    """Messages along the compared pairs. Row e of a message array goes to the pair's first text, row e + pairs to its
    second; a message holds the likelihood of every level of the text it goes to."""

    def __init__(self, count: int, pairs: list[tuple[int, int]], evidence: Floats) -> None:
        self._known, self._pairs = tuple(pairs), len(pairs)
        self._evidence, self._answers = evidence, evidence.sum(axis=0)
        levels = int(min(max(_LEVELS_PER_TEXT * count, _FEWEST_LEVELS), _MOST_LEVELS))
        ends = np.array(pairs, dtype=np.intp).reshape(-1, 2)
        self._to, self._from = ends.T.ravel(), ends[:, ::-1].T.ravel()
        self._count = count
        self._messages = np.full((2 * len(pairs), levels), 0.5)
        self._errors = (_PRIOR_ERRORS / _PRIOR_ANSWERS,) * 2

    def take_over(self, earlier: Beliefs) -> None:
        """Start from what was believed before."""
        rows = {pair: row for row, pair in enumerate(self._known)}
        kept = [rows[pair] for pair in earlier.pairs]
        self._messages[kept + [row + self._pairs for row in kept]] = earlier.messages
        self._errors = earlier.errors

    def step(self) -> None:
        """One round of messages, and the error rates that go with it."""
        senders = self._senders()
        share, likelier = self._shares(senders)
        share = np.concatenate([share, 1 - share])[:, None]
        below = _below(senders)
        self._messages = _DAMPING * self._messages + (1 - _DAMPING) * (1 - share + (2 * share - 1) * below)
        self._errors = self._fitted(likelier)

    def beliefs(self) -> Beliefs:
        """What the messages amount to."""
        places = _normalised(self._heard(np.log(self._messages)))
        below = _below(places)
        better = places @ below.T
        _, likelier = self._shares(self._senders())
        first, second = self._to[: self._pairs], self._from[: self._pairs]
        better[first, second], better[second, first] = likelier, 1 - likelier
        best, worst = ((places * _others(side)).sum(axis=1) for side in (below, 1 - below))
        return Beliefs(better, best / best.sum(), worst / worst.sum(), self._errors, self._known, self._messages)

    def _heard(self, logs: Floats) -> Floats:
        """For every text, the sum of what it hears."""
        total = np.zeros((self._count, logs.shape[1]))
        np.add.at(total, self._to, logs)
        return total

    def _senders(self) -> Floats:
        """For every message, what its sender would be without what it heard from the receiver."""
        logs = np.log(self._messages)
        heard = np.concatenate([logs[self._pairs :], logs[: self._pairs]])
        return _normalised(self._heard(logs)[self._from] - heard)

    def _shares(self, senders: Floats) -> tuple[Floats, Floats]:
        """Per pair: the probability that its first text is better, by its own answers alone, and by everything."""
        shown_first, shown_second = self._errors
        won, lost = log((1 - shown_first) / shown_second), log((1 - shown_second) / shown_first)
        lead = self._evidence @ np.array([won, -lost, -won, lost])
        share = 1 / (1 + np.exp(-lead))
        otherwise = (senders[self._pairs :] * _below(senders[: self._pairs])).sum(axis=1)
        agreed = share * otherwise
        return share, agreed / (agreed + (1 - share) * (1 - otherwise))

    def _fitted(self, likelier: Floats) -> tuple[float, float]:
        """The error rates that the answers and the present beliefs make likeliest."""
        won, lost, other_won, other_lost = likelier @ self._evidence
        not_won, not_lost, not_other_won, not_other_lost = self._answers - likelier @ self._evidence
        return (
            _rate(lost + not_other_lost, won + not_other_won),
            _rate(not_won + other_won, not_lost + other_lost),
        )


def _rate(wrong: float, right: float) -> float:
    return float(min((_PRIOR_ERRORS + wrong) / (_PRIOR_ANSWERS + wrong + right), _MOST_ERRORS))


def _normalised(logs: Floats) -> Floats:
    """Rows of logarithms as rows of probabilities."""
    values: Floats = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    values /= values.sum(axis=1, keepdims=True)
    return values


def _below(places: Floats) -> Floats:
    """The probability of being below each level, an equal level counting half."""
    result: Floats = places.cumsum(axis=1) - places / 2
    return result


def _others(values: Floats) -> Floats:
    """For every row the product of all the others."""
    logs = np.log(np.maximum(values, 1e-300))
    result: Floats = np.exp(logs.sum(axis=0) - logs)
    return result
