"""Whose turn it is in a mixture of sources. Pure.

In: weights. Out: places of sources, without an end. Guarantees: after n turns a source with the share w has had w * n,
give or take less than the number of sources; the same weights give the same turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def turns(weights: Sequence[float]) -> Iterator[int]:
    """The source that is furthest behind its share comes next; the first of several."""
    total = sum(weights)
    had = [0] * len(weights)
    while True:
        n = sum(had) + 1
        place = max(range(len(weights)), key=lambda each: weights[each] / total * n - had[each])
        had[place] += 1
        yield place
