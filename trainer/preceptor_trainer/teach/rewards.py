"""What an answer of a teacher is worth, from 0 to 1. Pure.

    judge      in one order     1 if the verdict is the label, else 0
               in both orders   for a right answer the share of right answers to the other order, else 0
    rewriter   good suffix      1 if it was copied word for word, else 0
               bad suffix       mean of quality and safety, and with their weights of faithfulness and length

The reward in both orders is the mean over all ways to pair answers of "1 if both are right" (J1, arXiv 2505.10320): it
is what lifts P(right in one order) x P(right in the other), so the worse of two orders is worth more. Its group has to
be both orders together: normalised by itself, either order would lose the factor that stands for the other one.
Faithfulness and length follow RePro (arXiv 2510.10681). None is no reward: nothing can be said, nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Reward = float | None


def both_orders(first: Sequence[bool], second: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Rewards of the answers to a pair in one order and in the other, from which of them are right."""
    return [right * fmean(second) for right in first], [right * fmean(first) for right in second]


def copied(rewrite: str, suffix: str) -> float:
    """1 if the words are the same; white space does not count."""
    return float(rewrite.split() == suffix.split())


def faithfulness(rewrite: str, suffix: str) -> float:
    """How much of each other's words both have: F1 over single words and pairs of neighbours, counted as often as they
    occur.
    """
    own, given = _grams(rewrite), _grams(suffix)
    total = own.total() + given.total()
    return 2 * (own & given).total() / total if total else 1.0


def length(rewrite: str, suffix: str) -> float:
    """The shorter over the longer, in words."""
    sizes = len(rewrite.split()), len(suffix.split())
    return min(sizes) / max(sizes) if max(sizes) else 1.0


@dataclass(frozen=True)
class RepairWeights:
    """Of faithfulness and length, next to 1 for the mean of quality and safety."""

    faithfulness: float
    length: float


def repaired(
    rewrite: str, suffix: str, *, quality: float | None, safety: float | None, weights: RepairWeights
) -> Reward:
    """`quality`: how often a judge prefers the rewrite to the suffix; `safety`: how often it finds it safe. Nothing
    written is worth 0; without a judgement there is no reward.
    """
    if not rewrite.split():
        return 0.0
    if quality is None or safety is None:
        return None
    total = (
        (quality + safety) / 2
        + weights.faithfulness * faithfulness(rewrite, suffix)
        + weights.length * length(rewrite, suffix)
    )
    return total / (1 + weights.faithfulness + weights.length)


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = text.casefold().split()
    return Counter([*((word,) for word in words), *pairwise(words)])
