"""What was measured over a range of sizes, and the exponent that fits it. Pure.

value = c x size^exponent        least squares on the logarithms of both; its standard error goes with it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls
from scipy.stats import linregress

Wanted = Literal["linear", "constant", "proportional"]
"""At most linear (a total), constant (the cost of one of many), or at least linear (a throughput)."""

BOUNDS: dict[Wanted, tuple[str, float]] = {
    "linear": ("<=", 1.05),
    "constant": ("<=", 0.05),
    "proportional": (">=", 0.95),
}


@dataclass(frozen=True)
class Curve:
    """`values` in `unit` at `sizes`. `wanted` is None where more than linear is in the nature of the thing."""

    part: str
    against: str
    unit: str
    sizes: Sequence[int]
    values: Sequence[float]
    wanted: Wanted | None = "linear"

    @property
    def fit(self) -> tuple[float, float]:
        """Exponent and standard error."""
        line = linregress(np.log(self.sizes), np.log(self.values))
        return float(line.slope), float(line.stderr)

    @property
    def last(self) -> float:
        """The exponent between the two largest sizes, where what is constant has the least part."""
        (small, low), (large, high) = list(zip(self.sizes, self.values, strict=True))[-2:]
        return float(np.log(high / low) / np.log(large / small))

    @property
    def met(self) -> float:
        """The exponent, its standard error taken in favour of the goal."""
        exponent, error = self.fit
        return exponent + error if self.wanted == "proportional" else exponent - error

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        exponent, error = self.fit
        fitted = {"exponent": exponent, "error": error, "last": self.last}
        return asdict(self) | {"sizes": list(self.sizes), "values": list(self.values)} | fitted


def linear_and_square(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """`c`, `a`, `b` of `c + a x size + b x size^2`, none below 0, by least squares of the relative errors."""
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    columns = np.stack([np.ones_like(x), x, x * x], axis=1) / y[:, None]
    scales = columns.max(axis=0)
    found, _ = nnls(columns / scales, np.ones_like(x))
    c, a, b = found / scales
    return float(c), float(a), float(b)
