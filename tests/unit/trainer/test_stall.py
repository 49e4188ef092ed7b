from __future__ import annotations

from dataclasses import replace

from preceptor_client.queue import QueueStatus
from preceptor_trainer.stall import Stall, diagnose

BUSY = QueueStatus(waiting=8, in_flight=4, dead=0, oldest_s=12.0, workers=2, runs={})


def said(queue: QueueStatus | None, *, producing: Stall | None = None, trouble: str | None = None) -> Stall:
    return diagnose(producing, trouble=trouble, unanswered=12, longest_s=34.2, queue=queue)


def test_a_redis_that_is_away_holds_everything_else_up() -> None:
    assert said(BUSY, producing=Stall("queue", "full"), trouble="away: refused") == Stall("redis", "away: refused")


def test_cohorts_that_are_not_sampled_yet_come_before_those_at_the_judges() -> None:
    assert said(BUSY, producing=Stall("policy engine", "it is sampling")).part == "policy engine"


def test_with_every_slot_taken_it_is_the_judges_and_the_queue_says_how_they_stand() -> None:
    assert said(BUSY) == Stall(
        "judges", "12 cohorts are out, the first for 34 s; the queue has 8 waiting and 4 at 2 workers"
    )
    assert said(None) == Stall("judges", "12 cohorts are out, the first for 34 s")


def test_missing_and_paused_workers_are_told() -> None:
    nobody = "0 at 0 workers: none asks for any, is one running, and is its engine up?"
    assert said(replace(BUSY, in_flight=0, workers=0)).detail.endswith(nobody)
    assert said(replace(BUSY, in_flight=0)).detail.endswith("0 at 2 workers: none takes any, is its engine up?")
