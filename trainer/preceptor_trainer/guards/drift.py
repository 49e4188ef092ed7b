"""Drift guards as a state machine: readings in, alarms out. Pure.

    within --beyond a limit--> beyond: 1, 2, ... in a row --warn_after--> warn --act_after--> pause or stop
       ^                                  |
       +------------ within again --------+

A limit is a number, or a share of the baseline: the mean of the guard's first readings. A reading that is no number is
beyond any limit. Guarantees: the same readings give the same alarms, whether the state went through a checkpoint in
between or not; a warning comes once in a row. After a pause or a stop the count begins anew: whoever goes on
has seen it, and is told again if it lasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from preceptor_trainer.guards.config import BaselineGuard, Guard, GuardAction, Reading


@dataclass
class GuardState:
    """What a guard remembers."""

    baseline: list[float] = field(default_factory=list)
    """Its first readings, as many as its baseline takes."""
    beyond: int = 0
    """Readings in a row that were beyond a limit."""


@dataclass
class WatchState:
    """What the guards of a run remember, for its checkpoints."""

    guards: dict[Reading, GuardState] = field(default_factory=dict)
    cohorts: int = 0
    """Judged since the last reading."""
    tally: dict[Reading, list[float]] = field(default_factory=dict)
    """What was read of each of those cohorts."""


@dataclass(frozen=True)
class Alarm:
    """A guard has something to say. `clear`: after a warning, the reading is within its limits again."""

    guard: Reading
    action: GuardAction | Literal["clear"]
    reading: float
    in_a_row: int
    limit: str
    """In words; empty if `clear`."""

    def __str__(self) -> str:
        if self.action == "clear":
            return f"drift guard {self.guard}: within its limits again ({self.reading:.4g})"
        times = "" if self.in_a_row == 1 else f", beyond a limit {self.in_a_row} times in a row"
        return f"drift guard {self.guard}: {self.reading:.4g} is {self.limit}{times}"


class DriftGuards:
    """`guards` are those that are on. A state of guards that are not is left behind."""

    def __init__(self, guards: Mapping[Reading, Guard], states: Mapping[Reading, GuardState]) -> None:
        self._guards = guards
        self.states = {name: deepcopy(states.get(name, GuardState())) for name in guards}

    def read(self, readings: Mapping[Reading, float]) -> list[Alarm]:
        """The alarms that `readings`, one of each guard at most, give."""
        alarms = (self._read(name, readings[name]) for name in self._guards if name in readings)
        return [alarm for alarm in alarms if alarm]

    def _read(self, name: Reading, reading: float) -> Alarm | None:
        guard, state = self._guards[name], self.states[name]
        limit = _beyond(guard, reading, state.baseline)
        if isinstance(guard, BaselineGuard) and len(state.baseline) < guard.baseline and math.isfinite(reading):
            state.baseline.append(reading)
        if limit is None:
            warned, state.beyond = state.beyond >= guard.warn_after, 0
            return Alarm(name, "clear", reading, 0, "") if warned else None
        state.beyond += 1
        action: GuardAction | None = None
        if guard.action != "warn" and state.beyond >= guard.act_after:
            action = guard.action
        elif state.beyond == guard.warn_after:
            action = "warn"
        alarm = Alarm(name, action, reading, state.beyond, limit) if action else None
        if action == guard.action != "warn":
            state.beyond = 0
        return alarm


def _beyond(guard: Guard, reading: float, first: list[float]) -> str | None:
    """The limit that `reading` is beyond, in words."""
    if not math.isfinite(reading):
        return "no number"
    highest, lowest = [(guard.above, "")], [(guard.below, "")]
    if isinstance(guard, BaselineGuard) and len(first) >= guard.baseline:
        baseline = fmean(first[: guard.baseline])
        if guard.rise is not None:
            highest.append((baseline * (1 + guard.rise), f" (its baseline {baseline:.4g} + {guard.rise:.0%})"))
        if guard.fall is not None:
            lowest.append((baseline * (1 - guard.fall), f" (its baseline {baseline:.4g} - {guard.fall:.0%})"))
    for limit, words in highest:
        if limit is not None and reading > limit:
            return f"above {limit:.4g}{words}"
    for limit, words in lowest:
        if limit is not None and reading < limit:
            return f"below {limit:.4g}{words}"
    return None
