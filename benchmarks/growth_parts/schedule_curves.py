"""What a schedule asks of a cohort, and the processor time that it takes by itself, against the candidates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from random import Random
from statistics import median

from benchmarks.growth_parts.curves import Curve, Wanted
from preceptor_client.contract import Order, ScheduleName
from preceptor_services.schedules import tournament

_BY_NATURE = {ScheduleName.ALL_PAIRS, ScheduleName.SWISS}
"""The reference that the others are measured by, and one whose rounds are as many as the logarithm."""


def schedule_curves(sizes: Sequence[int], rounds: int) -> Iterator[Curve]:
    """A judge that errs in one answer of seven, both orders."""
    for schedule in ScheduleName:
        played = {size: [_played(schedule, size, seed) for seed in range(rounds)] for size in sizes}
        wanted: Wanted | None = None if schedule in _BY_NATURE else "linear"
        name = f"schedule {schedule}"
        calls = [median(asked for asked, _ in of_size) for of_size in played.values()]
        seconds = [median(took for _, took in of_size) for of_size in played.values()]
        # What the others ask is arithmetic, n - 1 say, whose exponent on small sizes says nothing.
        of_calls: Wanted | None = "linear" if schedule is ScheduleName.ADAPTIVE else None
        yield Curve(name, "candidates", "calls", list(sizes), calls, of_calls)
        yield Curve(name, "candidates", "s", list(sizes), seconds, wanted)


def _played(schedule: ScheduleName, candidates: int, seed: int) -> tuple[int, float]:
    """How many comparisons one cohort took, and seconds of the processor."""
    dice = Random(f"{candidates}/{seed}")
    began = time.process_time()
    contest = tournament(schedule, [1] * candidates, order=Order.BOTH, seed=seed)
    while pairs := contest.next_round():
        contest.record({(i, j): float((i < j) == (dice.random() > 1 / 7)) for i, j in pairs})
    contest.standings()
    return len(contest.outcomes), time.process_time() - began
