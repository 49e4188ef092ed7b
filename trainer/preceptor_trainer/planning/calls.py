"""What judging a cohort asks of the teacher. Pure.

In: how many candidates, the schedule, the rubrics' sizes. Out: calls, and the spans of tokens that they read and write.
Counted as the judge service asks: comparisons of a round together and sorted by the text shown first, so that an engine
with a prefix cache reads instructions and prefix once an axis, and the first text once; votes are drawn in one request.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from preceptor_client.contract import Order, ScheduleName
from preceptor_trainer.planning.models import Span
from preceptor_trainer.planning.settings import AxisCost


def comparisons(schedule: ScheduleName, candidates: int, order: Order) -> int:
    """How many `schedule` asks of so many distinct texts, at most."""
    orders = 2 if order is Order.BOTH else 1
    every_pair = candidates * (candidates - 1) // 2
    match schedule:
        case ScheduleName.ALL_PAIRS:
            pairs = every_pair
        case ScheduleName.PIVOT:
            pairs = candidates - 1
        case ScheduleName.CIRCULAR:
            pairs = candidates if candidates > 2 else every_pair
        case ScheduleName.KNOCKOUT:
            pairs = min(ceil(3 * candidates / 2) - 2, every_pair)
        case ScheduleName.SWISS:
            pairs = min(candidates // 2 * (ceil(log2(candidates)) + 2), every_pair)
        case ScheduleName.ADAPTIVE:
            enough = orders * min(2 * candidates - 2, every_pair)
            pairs = max(min(every_pair // 2, 4 * candidates - 4), enough) // orders
    return pairs * orders


@dataclass(frozen=True)
class Asked:
    """Of one axis of one cohort."""

    calls: int
    sent: float
    """Prompt tokens of all calls, as they are sent."""
    read: tuple[Span, ...]
    """What the engine computes of them, each shared part once."""
    written: Span


def pairwise(axis: AxisCost, prefix: float, suffix: float, candidates: int, calls: int, votes: int) -> Asked:
    """`calls` comparisons. Every candidate is shown first by some of them, if there are enough."""
    shared = axis.instructions + (prefix if axis.shows_prefix else 0)
    firsts = min(candidates, calls)
    prompt = shared + 2 * suffix
    return Asked(
        calls,
        calls * prompt,
        (Span(1, shared), Span(firsts, suffix, shared), Span(calls, suffix, shared + suffix, logits=1)),
        Span(calls * votes, axis.completion, prompt, logits=axis.completion),
    )


def pointwise(axis: AxisCost, prefix: float, suffix: float, candidates: int, votes: int) -> Asked:
    """One call a candidate."""
    shared = axis.instructions + (prefix if axis.shows_prefix else 0) + (suffix if axis.shows_reference else 0)
    prompt = shared + suffix
    return Asked(
        candidates,
        candidates * prompt,
        (Span(1, shared), Span(candidates, suffix, shared, logits=1)),
        Span(candidates * votes, axis.completion, prompt, logits=axis.completion),
    )
