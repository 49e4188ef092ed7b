"""What is read from a run's metrics, and the tables made of it; no speed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.overlap import tables
from benchmarks.overlap_parts.timed_judge import answer
from benchmarks.overlap_parts.timing import Timing, compared
from preceptor_client.contract import Candidate, Cohort, Composition, JudgeRequest, Origin


def line(elapsed_s: float, **seconds: float) -> dict[str, Any]:
    return {"elapsed_s": elapsed_s, "seconds": seconds, "staleness": {"mean": 1.0, "max": 2}}


def test_a_timing_is_of_the_steps_after_the_first_line() -> None:
    lines = [
        line(10.0, sampling=99.0, updating=99.0),
        line(12.0, sampling=1.0, updating=0.5, syncing=0.1, idle=0.4, waiting=1.4),
        line(16.0, sampling=2.0, updating=0.5, syncing=0.3, idle=1.2, waiting=3.2),
    ]
    found = Timing.of(lines)
    assert (found.step, found.sampling, found.updating) == pytest.approx((3.0, 1.5, 0.7))
    assert (found.idle, found.waiting, found.staleness) == pytest.approx((0.8, 2.3, 1.0))


def timing(step: float, **figures: float) -> Timing:
    return Timing(
        **{"step": step, "sampling": 1.0, "updating": 0.5, "idle": 0.3, "waiting": 0.6, "staleness": 0.0, **figures}
    )


def test_two_ways_are_compared_by_the_median_of_the_rounds() -> None:
    sync, overlapped = [timing(3.0), timing(3.2), timing(9.0)], [timing(1.5), timing(2.0), timing(1.5)]
    figures = compared(sync, overlapped, judging_s=1.4)
    assert figures["async_over_sync"] == pytest.approx(2.0)
    assert (figures["longest_stage"], figures["step_over_longest_stage"]) == ("judging", pytest.approx(1.5 / 1.4))
    assert (figures["trainer_idle_share"], figures["learner_waiting_share"]) == pytest.approx((0.2, 0.4))


def test_judging_that_is_not_set_is_what_a_synchronous_step_has_left_over() -> None:
    figures = compared([timing(4.0)], [timing(2.6)], judging_s=None)
    assert figures["stages_s"] == {"sampling": 1.0, "judging": 2.5, "updating": 0.5}


def test_the_tables_have_a_row_a_speed_and_one_for_the_teacher() -> None:
    figures = compared([timing(3.0)], [timing(1.5)], judging_s=1.5)
    sizes = dict.fromkeys(("width", "layers", "prefix", "suffix", "rollouts", "cohorts_per_step"), 8)
    teacher = {**figures, "speed": 1.3, "cohorts_per_step": 8, "rollouts": 4}
    result = {
        "sizes": sizes,
        "staleness": 3,
        "speeds": [{"speed": speed, **figures} for speed in (0.5, 1.0)],
        "teacher": teacher,
    }
    timed, nano = tables(result)
    assert [row[0] for row in timed.rows] == [0.5, 1.0]
    assert all(len(row) == len(table.columns) for table in (timed, nano) for row in table.rows)


def test_the_timed_judge_scores_every_candidate_by_its_text() -> None:
    texts = ("a b", "c d", "a b")
    candidates = tuple(Candidate(id=f"c{n}", origin=Origin.ROLLOUT, text=text) for n, text in enumerate(texts))
    request = JudgeRequest(
        cohort=Cohort(id="c", prefix="p", candidates=candidates, reference="r"),
        axes=("quality",),
        composition=Composition(weights={"quality": 1.0}),
    )
    first, second, third = [one.score for one in answer(request).composites]
    assert first == third != second
