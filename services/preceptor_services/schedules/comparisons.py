"""Comparisons, what came of them, and what they add up to. Pure.

    texts -> distinct texts -> comparisons (first, second) -> outcomes -> standings, one per distinct text

Guarantees: two orders of a pair that disagree are a tie; a pair with an order asked and unanswered counts for neither
side. Candidates with the same text are judged once and count as tied with one another, which is what comparing every
candidate would give.
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
    """How one text fared. `score` is its win rate, in [0, 1]: counted under all pairs, expected under the others; None
    without a usable pair. The counts are of candidates, so that copies of an opponent count each."""

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


def pair_score(shown_first: Outcome, shown_second: Outcome) -> float | None:
    """1, 0.5 or 0 for a text, from the comparison that shows it first and the one that shows it second."""
    if isinstance(shown_first, Unanswered) or isinstance(shown_second, Unanswered):
        return None
    return shown_first if shown_first == 1 - shown_second else 0.5


def pair_scores(outcomes: Mapping[Comparison, Outcome]) -> dict[tuple[int, int], float]:
    """1, 0.5 or 0 for text i against text j, for both (i, j) and (j, i), of every usable pair."""
    scores: dict[tuple[int, int], float] = {}
    for (first, second), outcome in outcomes.items():
        score = pair_score(outcome, outcomes.get((second, first), _reversed(outcome)))
        if score is not None:
            scores[first, second], scores[second, first] = score, 1 - score
    return scores


def _reversed(outcome: Outcome) -> Outcome:
    return outcome if isinstance(outcome, Unanswered) else 1 - outcome


def standings(
    copies: Sequence[int], outcomes: Mapping[Comparison, Outcome], scores: Sequence[float | None] | None = None
) -> list[Standing]:
    """The standing of every distinct text, of which there are `copies`; its score is taken from `scores`, or else
    counted over its usable pairs."""
    pairs = pair_scores(outcomes)
    against: list[list[Outcome]] = [[] for _ in copies]
    for pair, outcome in outcomes.items():
        for text in pair:
            against[text].append(outcome)
    found = []
    for me, mine in enumerate(copies):
        results = {0.0: 0, 0.5: mine - 1, 1.0: 0}
        for other, others in enumerate(copies):
            if (score := pairs.get((me, other))) is not None:
                results[score] += others
        usable = len(copies) == 1 or any((me, other) in pairs for other in range(len(copies)))
        score = scores[me] if scores is not None else _win_rate(results, len(copies) == 1) if usable else None
        found.append(
            Standing(
                score if usable else None,
                won=results[1.0],
                lost=results[0.0],
                tied=results[0.5],
                unreadable=against[me].count(Unanswered.UNREADABLE),
                failed=against[me].count(Unanswered.FAILED),
            )
        )
    return found


def _win_rate(results: Mapping[float, int], alone: bool) -> float:
    return 0.5 if alone else sum(score * count for score, count in results.items()) / sum(results.values())


def position_consistency(outcomes: Mapping[Comparison, Outcome]) -> float | None:
    """Share of the pairs answered in both orders whose two orders agree; None if there is no such pair."""
    agreeing = [
        first == 1 - second
        for (i, j), first in outcomes.items()
        if i < j and isinstance(first, float) and isinstance(second := outcomes.get((j, i)), float)
    ]
    return sum(agreeing) / len(agreeing) if agreeing else None


def position_bias(outcomes: Mapping[Comparison, Outcome]) -> float | None:
    """Share of the answered comparisons that the text shown first won, less the share that it lost; None if none is
    answered. Over pairs asked in both orders, the candidates' quality does not enter it."""
    answered = [outcome for outcome in outcomes.values() if not isinstance(outcome, Unanswered)]
    return sum(2 * outcome - 1 for outcome in answered) / len(answered) if answered else None
