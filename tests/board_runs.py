"""A run as the board has it, without a trainer."""

from __future__ import annotations

from typing import Any

from preceptor_client.contract import RunInfo, RunState


def an_info(run: str = "sip-1", seen_at: float = 1.0, **changes: Any) -> RunInfo:
    return RunInfo(
        run=run,
        name="sip",
        state=RunState.RUNNING,
        started_at=0.0,
        seen_at=seen_at,
        step=1,
        steps=10,
        objective="dpo",
        axes={"quality": 1.0},
        cohorts_per_step=8,
        rollouts=4,
        rewrites=False,
        staleness_limit=1,
        every=8,
    ).model_copy(update=changes)
