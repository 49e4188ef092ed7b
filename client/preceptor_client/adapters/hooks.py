"""What the reward hooks of verl, OpenRLHF and slime share: what stands for "no reward" in a framework without a None.

In: findings. Out: numbers for the framework. Raises `UnjudgedError`, unless NaN is asked for: the filters of groups of
OpenRLHF and slime, where they are on, drop a group that holds a NaN and draw another in its place. Without such a
filter a NaN would spoil the update, so it is never the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from preceptor_client.adapters.scoring import Scored, UnjudgedError

Unjudged = Literal["raise", "nan"]


def numbers(found: Scored, axes: Sequence[str], unjudged: Unjudged = "raise") -> dict[str, float]:
    """Each axis's score, and `score`; NaN for what there is not, if that is allowed."""
    if found.score is None and unjudged == "raise":
        raise UnjudgedError(f"no reward for a text, and none is made up: {found.reason}")
    scores = {axis: found.axes.get(axis, math.nan) for axis in axes}
    return {**scores, "score": math.nan if found.score is None else found.score}
