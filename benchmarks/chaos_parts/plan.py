"""Which faults hit which parts, and when. Pure: the same seed gives the same faults in the same order.

Every five faults hit the five parts once each, every fifteen each part in each of the three ways.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """What is hit."""

    WORKER = "worker"
    JUDGE = "judge"
    VLLM = "vllm"
    REDIS = "redis"
    TRAINER = "trainer"


class Kind(StrEnum):
    """How."""

    KILL = "kill"
    """SIGKILL, then started again."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT some seconds later."""
    RESTART = "restart"
    """SIGTERM, then started again."""


SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 8.0
"""Leases run out within it, and an engine that hangs is given up, or not, as chance has it."""
_MOST_COHORTS_BETWEEN = 12
_LONGEST_DELAY_S = 1.0


@dataclass(frozen=True)
class Fault:
    """One fault. It comes when `cohorts` more have been trained, the part has work in hand and `delay_s` is over."""

    target: Target
    kind: Kind
    cohorts: int
    delay_s: float
    pause_s: float
    """Between SIGSTOP and SIGCONT."""
    pick: int
    """Which, where there are several of the part: the remainder of a division by their number."""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.pause_s:.1f} s" if self.kind is Kind.PAUSE else "")


def plan(faults: int, seed: int) -> list[Fault]:
    """The first `faults` faults of `seed`."""
    order, dice = random.Random(f"chaos order {seed}"), random.Random(f"chaos {seed}")
    cells: list[tuple[Target, Kind]] = []
    while len(cells) < faults:
        cells += _all_cells(order)
    return [
        Fault(
            target,
            kind,
            cohorts=dice.randint(1, _MOST_COHORTS_BETWEEN),
            delay_s=dice.uniform(0, _LONGEST_DELAY_S),
            pause_s=dice.uniform(SHORTEST_PAUSE_S, LONGEST_PAUSE_S),
            pick=dice.randrange(60),
        )
        for target, kind in cells[:faults]
    ]


def _all_cells(dice: random.Random) -> list[tuple[Target, Kind]]:
    """Every target with every kind, in three rounds over the targets."""
    targets, kinds = dice.sample([*Target], len(Target)), dice.sample([*Kind], len(Kind))
    first = {target: place for place, target in enumerate(targets)}
    return [
        (target, kinds[(first[target] + turn) % len(kinds)])
        for turn in range(len(kinds))
        for target in dice.sample(targets, len(targets))
    ]
