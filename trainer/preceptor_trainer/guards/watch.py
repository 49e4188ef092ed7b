"""The watch over a run: takes the readings that its guards need, tells the telemetry, and says when to end.

    judged   --of each cohort--> tally of the cohorts since the last reading --> mean --> DriftGuards --> alarms
    updated  --every so many updates--> held-out NLL -----------------------------^

In: judged cohorts, also those that are not trained on (what a collapsed policy writes is all the same, and ties), and
the policy after each update. Out: readings and alarms in the telemetry, and a `Drifted` for one that asks for a pause
or a stop. A reading of cohorts is a mean over at least as many as an update takes. Guarantees: it does not depend on
the order in which their verdicts came, and `state` is all that a run which goes on from it needs to read the same.
Without guards nothing is computed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import fmean
from typing import Any

from preceptor_client.contract import JudgeResponse
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.guards.config import Reading
from preceptor_trainer.guards.drift import Alarm, DriftGuards, WatchState
from preceptor_trainer.guards.held_out import held_out_nll
from preceptor_trainer.guards.readings import of_cohort
from preceptor_trainer.telemetry import Telemetry


class Drifted(TrainError):
    """The run drifts, and by its configuration it does not go on by itself."""

    def __init__(self, alarm: Alarm, step: int) -> None:
        super().__init__(f"{alarm}; the last update was {step}")
        self.alarm = alarm

    @property
    def pauses(self) -> bool:
        """Until the operator says so; else it ends."""
        return self.alarm.action == "pause"


class Watch:
    """`held_out` are the windows of the guard `held_out_nll`; there are none if it is off."""

    def __init__(
        self,
        config: TrainConfig,
        telemetry: Telemetry,
        held_out: Sequence[Window],
        state: WatchState | None,
    ) -> None:
        self._config = config
        self._telemetry = telemetry
        self._held_out = held_out
        state = deepcopy(state or WatchState())
        self._guards = DriftGuards(config.guards.on, state.guards)
        self._cohorts, self._tally = state.cohorts, state.tally

    @property
    def state(self) -> WatchState:
        """Of this moment."""
        return deepcopy(WatchState(self._guards.states, self._cohorts, self._tally))

    def judged(self, cohort: PolicyCohort, response: JudgeResponse) -> None:
        """The judges have answered, whatever it is worth."""
        if not self._guards.states:
            return
        self._cohorts += 1
        for name, value in of_cohort(cohort, response).items():
            self._tally.setdefault(name, []).append(value)

    async def begin(self, model: Any, step: int) -> Drifted | None:
        """Before the first update after `step`: the baseline of the held-out NLL, if it is not there yet."""
        if not self._held_out or self._guards.states["held_out_nll"].baseline:
            return None
        return self._drifted({"held_out_nll": await self._nll(model)}, step)

    async def updated(self, model: Any, step: int) -> Drifted | None:
        """After update `step`; `model` must not change meanwhile. Why the run should not go on, if so."""
        readings = self._of_cohorts()
        guard = self._config.guards.held_out_nll
        if guard and step % guard.every == 0:
            readings["held_out_nll"] = await self._nll(model)
        return self._drifted(readings, step)

    def without_update(self, step: int) -> Drifted | None:
        """The same for a run that may have had no update since `step`, because all cohorts tie or are not judged."""
        return self._drifted(self._of_cohorts(), step)

    def _of_cohorts(self) -> dict[Reading, float]:
        if self._cohorts < self._config.cohorts_per_step:
            return {}
        readings = {name: fmean(values) for name, values in self._tally.items()}  # rounded once: in any order the same
        self._cohorts, self._tally = 0, {}
        return readings

    async def _nll(self, model: Any) -> float:
        with self._telemetry.clock("guarding"):
            return await asyncio.to_thread(held_out_nll, model, self._held_out, self._config.compute)

    def _drifted(self, readings: Mapping[Reading, float], step: int) -> Drifted | None:
        alarms = self._guards.read(readings)
        self._telemetry.read(readings, {name: state.beyond for name, state in self._guards.states.items()})
        for alarm in alarms:
            self._telemetry.say(str(alarm))
            self._telemetry.count(f"guard_{alarm.guard}_{alarm.action}")
        ends = {alarm.action: alarm for alarm in alarms}
        gravest = ends.get("stop") or ends.get("pause")
        return Drifted(gravest, step) if gravest else None
