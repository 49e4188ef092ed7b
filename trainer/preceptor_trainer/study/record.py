"""What is kept of a study's run beside what was measured: its cost, and where and when that was.

In: a run's configuration once it has ended, and estimates. Out: entries of its record, as JSON has them. Reads the
run's summary; asks git and the system.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.evaluation.statistics import Estimate
from preceptor_trainer.machine import commit, machine

NO_COST: dict[str, Any] = {"steps": 0, "train_s": 0.0, "judge_calls": 0}
"""Of a model that the study did not train."""


def summary_of(config: TrainConfig) -> dict[str, Any]:
    """What the run says of itself."""
    summary: dict[str, Any] = json.loads((config.out / "summary.json").read_text(encoding="utf-8"))
    return summary


def cost(steps: int, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Updates, seconds, and questions to the judge."""
    return {
        "steps": steps,
        "train_s": summary["elapsed_s"],
        "judge_calls": summary["judge"].get("calls", 0),
    }


def here_and_now() -> dict[str, Any]:
    """The day, the commit and the machine."""
    return {"at": time.strftime("%Y-%m-%d"), "commit": commit(), **machine()}


def exactly(estimate: Estimate) -> dict[str, Any]:
    """Six digits, as the interval over seeds is computed of these."""
    return {"value": round(estimate.value, 6), "ci95": [round(estimate.low, 6), round(estimate.high, 6)]}
