"""Means, win rates and relative gains with 95 % intervals. Pure.

In: one measurement per held-out prefix. Out: `Estimate`s. Intervals are percentile bootstraps over prefixes with a
fixed seed, so they hold for means, paired comparisons and ratios alike, and the same data gives the same numbers. What
several seeds gave has an interval over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points of Student's distribution with 1, 2, ... degrees of freedom; more take the last, which is wider."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Short, for tables: the interval as its larger half."""
        return f"{self.value:.3f} ±{max(self.high - self.value, self.value - self.low):.3f}"

    def to_json(self) -> dict[str, float | list[float]]:
        """`{"value": ..., "ci95": [low, high]}`, rounded to 4 decimals."""
        return {"value": round(self.value, 4), "ci95": [round(self.low, 4), round(self.high, 4)]}


def mean(scores: Sequence[float]) -> Estimate:
    """The mean of one score per prefix. Raises ValueError without scores."""
    values = _array(scores)
    return _interval(values.mean(), values[_resamples(len(values))].mean(axis=1))


def relative_gain(scores: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """mean(scores) / mean(baseline) - 1, the two paired by prefix. Raises ValueError if the baseline's mean is 0."""
    ours, theirs = _array(scores), _array(baseline)
    _check_paired(ours, theirs)
    if theirs.mean() == 0:
        raise ValueError("no relative gain over a baseline whose mean is 0")
    chosen = _resamples(len(ours))
    with np.errstate(divide="ignore"):
        ratios = ours[chosen].mean(axis=1) / theirs[chosen].mean(axis=1) - 1
    return _interval(ours.mean() / theirs.mean() - 1, ratios)


def win_rate(scores: Sequence[float], rivals: Sequence[float]) -> Estimate:
    """Share of prefixes on which `scores` is higher; a tie counts one half to each side."""
    ours, theirs = _array(scores), _array(rivals)
    _check_paired(ours, theirs)
    return mean(((ours > theirs) + 0.5 * (ours == theirs)).tolist())


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value per seed, with Student's interval. Raises ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError("an interval over seeds needs two of them")
    array = _array(values)
    half = _T_975[min(len(values) - 1, len(_T_975)) - 1] * array.std(ddof=1) / len(values) ** 0.5
    return Estimate(float(array.mean()), float(array.mean() - half), float(array.mean() + half))


def _array(scores: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        raise ValueError("nothing to average")
    return values


def _check_paired(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"scores of {len(ours)} prefixes cannot be paired with those of {len(theirs)}")


@lru_cache(maxsize=4)
def _resamples(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, size=(_RESAMPLES, count))


def _interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))
