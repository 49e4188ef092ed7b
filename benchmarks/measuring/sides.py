"""Two or more ways of doing the same, measured in turn.

In: named functions. Out: seconds per call of each, one figure a round. Guarantees: in every round each side runs once,
in an order that turns from round to round, so that a machine that slows down slows all of them; the first call of
each is not counted.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for name in names:
        sides[name]()
    for _ in range(rounds):
        for name in names:
            gc.collect()
            began = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - began)
        names.append(names.pop(0))
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Of each side."""
    return {name: median(values) for name, values in seconds.items()}
