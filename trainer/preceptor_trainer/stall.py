"""What a learner with a dry buffer waits for, in words. Pure.

In: what the producer is doing and what is out. Out: the part that holds the run up, and what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preceptor_client.queue import QueueStatus

StalledPart = Literal["redis", "judges", "documents", "rewrite service", "policy engine", "queue"]


@dataclass(frozen=True)
class Stall:
    """`part` holds the run up; `detail` is for people."""

    part: StalledPart
    detail: str


def diagnose(
    producing: Stall | None, *, trouble: str | None, unanswered: int, longest_s: float, queue: QueueStatus | None
) -> Stall:
    """`producing` is what PRODUCE is held up by, None when every slot is taken. `trouble` is Redis'."""
    if trouble is not None:
        return Stall("redis", trouble)
    if producing is not None:
        return producing
    out = f"{unanswered} cohorts are out, the first for {longest_s:.0f} s"
    if queue is None:
        return Stall("judges", out)
    out += f"; the queue has {queue.waiting} waiting and {queue.in_flight} at {queue.workers} workers"
    if not queue.workers:
        out += ": none asks for any, is one running, and is its engine up?"
    elif queue.waiting and not queue.in_flight:
        out += ": none takes any, is its engine up?"
    return Stall("judges", out)
