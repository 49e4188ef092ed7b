"""How many rollouts a prefix gets, when a controller adds them as they start to win. Pure.

In: the number so far, and the cohorts that were trained on. Out: the number from now on. It starts with one and grows
by one, up to `pool.rollouts`, whenever rollouts were chosen in `controller.share` of the last `controller.window`
cohorts, counted anew after each such window. Without a controller the number stands, and the judge alone decides how
often a rollout is learned from (SIP, arXiv 2601.21343).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import PoolConfig


@dataclass(frozen=True)
class Growth:
    """`rollouts` a prefix; of the `cohorts` of the present window, a rollout was chosen in `won`."""

    rollouts: int
    cohorts: int = 0
    won: int = 0


def begun(pool: PoolConfig, earlier: Growth | None = None) -> Growth:
    """At the start of a run, or of its next part, whose pool may be another: where the `earlier` part had come to."""
    if pool.controller is None:
        return Growth(pool.rollouts)
    earlier = earlier or Growth(1)
    return replace(earlier, rollouts=min(max(earlier.rollouts, 1), pool.rollouts))


def grown(growth: Growth, batch: Sequence[PolicyCohort], pool: PoolConfig) -> Growth:
    """After `batch` was trained on."""
    if pool.controller is None:
        return growth
    cohorts = growth.cohorts + len(batch)
    won = growth.won + sum(bool(each.judged and each.judged.chosen.origin is Origin.ROLLOUT) for each in batch)
    if cohorts < pool.controller.window:
        return Growth(growth.rollouts, cohorts, won)
    more = won >= pool.controller.share * cohorts
    return Growth(min(growth.rollouts + more, pool.rollouts))
