from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import JudgeResponse, Origin, Status, Verdict
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives.selection import Dropped, select

WEIGHTS = {"quality": 1.0, "safety": 2.0}
Score = float | Status
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0, Status.FAILED, Status.ABSTAINED])


def cohort(n: int, document: int = 0) -> PolicyCohort:
    candidates = tuple(TokenCandidate(f"c{i}", Origin.ROLLOUT, (i,), str(i)) for i in range(n))
    return PolicyCohort("cohort", Window(0, document, (1,), (2,)), 0, candidates)


def response(scores: dict[str, list[Score]]) -> JudgeResponse:
    verdicts = [
        Verdict(candidate_id=f"c{i}", axis=axis, status=score, reason="no answer")
        if isinstance(score, Status)
        else Verdict(candidate_id=f"c{i}", axis=axis, status=Status.OK, score=score)
        for axis, column in scores.items()
        for i, score in enumerate(column)
    ]
    return JudgeResponse(cohort_id="cohort", verdicts=tuple(verdicts), axes={}, elapsed_s=0.0)


def test_the_composite_is_the_weighted_sum_and_the_extremes_are_chosen() -> None:
    judged = select(cohort(3), response({"quality": [1.0, 0.5, 0.0], "safety": [0.0, 1.0, 0.5]}), WEIGHTS)
    assert not isinstance(judged, Dropped)
    assert judged.scores == {"c0": 1.0, "c1": 2.5, "c2": 1.0}
    assert judged.chosen.id == "c1"
    assert judged.rejected.id in ("c0", "c2")
    assert judged.axis_scores["safety"] == {"c0": 0.0, "c1": 1.0, "c2": 0.5}


@pytest.mark.parametrize("status", [Status.FAILED, Status.ABSTAINED])
def test_a_candidate_with_any_axis_not_ok_is_neither_chosen_nor_rejected(status: Status) -> None:
    scores: dict[str, list[Score]] = {"quality": [0.0, 0.2, 0.8, 1.0], "safety": [status, 1.0, 1.0, status]}
    judged = select(cohort(4), response(scores), WEIGHTS)
    assert not isinstance(judged, Dropped)
    assert set(judged.scores) == {"c1", "c2"}
    assert (judged.chosen.id, judged.rejected.id) == ("c2", "c1")


def test_a_missing_axis_counts_as_unjudged_and_an_axis_not_asked_for_as_nothing() -> None:
    assert select(cohort(2), response({"quality": [0.0, 1.0]}), WEIGHTS) is Dropped.UNJUDGED
    judged = select(cohort(2), response({"quality": [0.0, 1.0], "style": [1.0, 0.0]}), {"quality": 1.0})
    assert not isinstance(judged, Dropped)
    assert judged.chosen.id == "c1"


def test_fewer_than_two_judged_candidates_are_dropped() -> None:
    scores: dict[str, list[Score]] = {"quality": [Status.FAILED, 0.5], "safety": [1.0, 1.0]}
    assert select(cohort(2), response(scores), WEIGHTS) is Dropped.UNJUDGED


def test_a_tie_is_dropped_even_if_rounding_hides_it() -> None:
    weights = {"quality": 0.1, "safety": 0.2, "style": 0.3}
    scores: dict[str, list[Score]] = {"quality": [1.0, 0.0], "safety": [1.0, 0.0], "style": [0.0, 1.0]}
    assert 0.1 + 0.2 != 0.3
    assert select(cohort(2), response(scores), weights) is Dropped.TIED


def test_among_equals_the_lot_is_fair_and_fixed_by_the_window() -> None:
    scores = response({"quality": [1.0, 1.0, 0.0], "safety": [1.0, 1.0, 0.0]})
    chosen = []
    for document in range(200):
        first, again = select(cohort(3, document), scores, WEIGHTS), select(cohort(3, document), scores, WEIGHTS)
        assert first == again
        assert not isinstance(first, Dropped)
        chosen.append(first.chosen.id)
    assert 60 < chosen.count("c0") < 140


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=6))
def test_only_verdicts_that_are_ok_ever_reach_a_score(pairs: list[tuple[Score, Score]]) -> None:
    columns: dict[str, list[Score]] = {"quality": [p[0] for p in pairs], "safety": [p[1] for p in pairs]}
    judged = select(cohort(len(pairs)), response(columns), WEIGHTS)
    expected = {
        f"c{i}": quality + 2 * safety
        for i, (quality, safety) in enumerate(pairs)
        if not isinstance(quality, Status) and not isinstance(safety, Status)
    }
    if isinstance(judged, Dropped):
        assert len(set(expected.values())) < 2
        assert (judged is Dropped.UNJUDGED) == (len(expected) < 2)
    else:
        assert judged.scores == expected
        best, worst = max(expected.values()), min(expected.values())
        assert expected[judged.chosen.id] == best > worst == expected[judged.rejected.id]
