"""Where the time of a run went, from its metrics. Pure.

In: the lines of metrics.jsonl. Out: seconds a step, over the steps in which the pipeline was full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self


@dataclass(frozen=True)
class Timing:
    """Means a step, in seconds. `idle`: neither sampling nor updating nor syncing; `waiting`: the learner, for a
    batch.
    """

    step: float
    sampling: float
    updating: float
    """With the sync of the weights."""
    idle: float
    waiting: float
    staleness: float

    @classmethod
    def read(cls, out: Path, *, filling: int, draining: int) -> Self:
        """Without the first `filling` steps and the last `draining` ones."""
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return cls.of(lines[filling - 1 : len(lines) - draining])

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> Self:
        """Of the steps after the first line."""
        steps = lines[1:]

        def seconds(name: str) -> float:
            return fmean(line["seconds"].get(name, 0.0) for line in steps)

        return cls(
            step=(steps[-1]["elapsed_s"] - lines[0]["elapsed_s"]) / len(steps),
            sampling=seconds("sampling"),
            updating=seconds("updating") + seconds("syncing"),
            idle=seconds("idle"),
            waiting=seconds("waiting"),
            staleness=fmean(line["staleness"]["mean"] for line in steps),
        )

    @classmethod
    def median(cls, rounds: Sequence[Self]) -> Self:
        """Of each figure."""
        return cls(**{name: median(getattr(each, name) for each in rounds) for name in cls.__dataclass_fields__})


def compared(sync: Sequence[Timing], overlapped: Sequence[Timing], judging_s: float | None) -> dict[str, Any]:
    """Both ways of running the same, a reading a round. `judging_s` is what judging a batch takes; None if it is not
    set but seen: what a synchronous step has left over.
    """
    alone, ours = Timing.median(sync), Timing.median(overlapped)
    left_over_s = alone.step - alone.sampling - alone.updating
    stages = {
        "sampling": alone.sampling,
        "judging": left_over_s if judging_s is None else judging_s,
        "updating": alone.updating,
    }
    longest = max(stages, key=lambda name: stages[name])
    return {
        "stages_s": stages,
        "sync_step_s": alone.step,
        "async_step_s": ours.step,
        "async_over_sync": median(before.step / after.step for before, after in zip(sync, overlapped, strict=True)),
        "longest_stage": longest,
        "step_over_longest_stage": ours.step / stages[longest],
        "trainer_idle_share": ours.idle / ours.step,
        "trainer_idle_share_sync": alone.idle / alone.step,
        "learner_waiting_share": ours.waiting / ours.step,
        "stages_while_overlapped_s": {"sampling": ours.sampling, "updating": ours.updating},
        "staleness": ours.staleness,
    }
