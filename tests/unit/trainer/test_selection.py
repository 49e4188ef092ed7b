from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import (
    AxisReport,
    Composite,
    JudgeResponse,
    Origin,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives.selection import Dropped, select, select_by_origin

Score = float | Status

REPORT = AxisReport(
    provenance=Provenance(teacher="t", revision="r", rubric="r", rubric_hash="0", sampling=Sampling()), usage=Usage()
)


def cohort(n: int, document: int = 0) -> PolicyCohort:
    candidates = tuple(TokenCandidate(f"c{i}", Origin.ROLLOUT, (i,), str(i)) for i in range(n))
    return PolicyCohort("cohort", Window(0, document, (1,), (2,)), 0, candidates)


def response(*composites: float | None, scores: dict[str, list[Score]] | None = None) -> JudgeResponse:
    verdicts = [
        Verdict(candidate_id=f"c{i}", axis=axis, status=score, reason="no answer")
        if isinstance(score, Status)
        else Verdict(candidate_id=f"c{i}", axis=axis, status=Status.OK, score=score)
        for axis, column in (scores or {}).items()
        for i, score in enumerate(column)
    ]
    return JudgeResponse(
        cohort_id="cohort",
        verdicts=tuple(verdicts),
        axes=dict.fromkeys(scores or (), REPORT),
        composites=tuple(
            Composite(candidate_id=f"c{i}", score=score, reason="no verdict" if score is None else None)
            for i, score in enumerate(composites)
        ),
        elapsed_s=0.0,
    )


def test_the_extremes_of_the_composites_are_chosen() -> None:
    judged = select(cohort(3), response(0.2, 0.9, 0.5, scores={"safety": [0.0, 1.0, Status.FAILED]}))
    assert not isinstance(judged, Dropped)
    assert judged.scores == {"c0": 0.2, "c1": 0.9, "c2": 0.5}
    assert (judged.chosen.id, judged.rejected.id) == ("c1", "c0")
    assert judged.axis_scores == {"safety": {"c0": 0.0, "c1": 1.0}}


def test_a_candidate_without_a_composite_is_neither_chosen_nor_rejected() -> None:
    judged = select(cohort(4), response(None, 0.2, 0.8, None))
    assert not isinstance(judged, Dropped)
    assert set(judged.scores) == {"c1", "c2"}
    assert (judged.chosen.id, judged.rejected.id) == ("c2", "c1")


def test_candidates_that_lack_a_verdict_on_an_axis_are_named() -> None:
    verdicts: dict[str, list[Score]] = {"quality": [0.1, 0.9, 0.5, Status.ABSTAINED], "safety": [1.0, 1.0]}
    judged = select(cohort(4), response(0.2, 0.9, None, None, scores=verdicts))
    assert not isinstance(judged, Dropped)
    assert judged.failed == ("c2", "c3")


def test_fewer_than_two_judged_candidates_are_dropped() -> None:
    assert select(cohort(2), response(None, 0.5)) is Dropped.UNJUDGED
    assert select(cohort(2), response()) is Dropped.UNJUDGED


def test_a_tie_is_dropped_even_if_rounding_hides_it() -> None:
    assert 0.1 + 0.2 != 0.3
    assert select(cohort(2), response(0.1 + 0.2, 0.3)) is Dropped.TIED


def test_among_equals_the_lot_is_fair_and_fixed_by_the_window() -> None:
    scores = response(1.0, 1.0, 0.0)
    chosen = []
    for document in range(200):
        first, again = select(cohort(3, document), scores), select(cohort(3, document), scores)
        assert first == again
        assert not isinstance(first, Dropped)
        chosen.append(first.chosen.id)
    assert 60 < chosen.count("c0") < 140


@given(st.lists(st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6))
def test_what_is_chosen_has_the_best_score_and_what_is_rejected_the_worst(composites: list[float | None]) -> None:
    judged = select(cohort(len(composites)), response(*composites))
    expected = {f"c{i}": score for i, score in enumerate(composites) if score is not None}
    if isinstance(judged, Dropped):
        assert len(set(expected.values())) < 2
        assert (judged is Dropped.UNJUDGED) == (len(expected) < 2)
    else:
        assert judged.scores == expected
        best, worst = max(expected.values()), min(expected.values())
        assert expected[judged.chosen.id] == best > worst == expected[judged.rejected.id]


def of_origins(*texts: tuple[Origin, int]) -> PolicyCohort:
    candidates = tuple(TokenCandidate(f"c{i}", origin, (id,), str(id)) for i, (origin, id) in enumerate(texts))
    return PolicyCohort("cohort", Window(0, 0, (1,), (2,)), 0, candidates)


REWRITE_OVER_ROLLOUT = (Origin.REWRITE, Origin.ROLLOUT)


def test_without_a_judge_pairs_are_by_origin_and_nothing_has_a_score() -> None:
    given = of_origins((Origin.ORIGINAL, 7), (Origin.REWRITE, 8), (Origin.ROLLOUT, 9), (Origin.ROLLOUT, 10))
    paired = select_by_origin(given, REWRITE_OVER_ROLLOUT)
    assert not isinstance(paired, Dropped)
    assert paired.judged
    assert (paired.judged.chosen.id, paired.judged.rejected.id) == ("c1", "c2")
    assert paired.judged.scores == {}


def test_without_a_judge_a_pair_needs_two_that_differ() -> None:
    refused = of_origins((Origin.ORIGINAL, 7), (Origin.ROLLOUT, 9))
    assert select_by_origin(refused, REWRITE_OVER_ROLLOUT) is Dropped.UNFIT
    alike = of_origins((Origin.REWRITE, 9), (Origin.ROLLOUT, 9))
    assert select_by_origin(alike, REWRITE_OVER_ROLLOUT) is Dropped.TIED


def test_an_objective_that_compares_nothing_takes_any_cohort_that_holds_something() -> None:
    given = of_origins((Origin.REWRITE, 8))
    assert select_by_origin(given, None) is given
    assert select_by_origin(of_origins(), None) is Dropped.UNFIT


def thinking(*malformed: bool) -> PolicyCohort:
    candidates = tuple(
        TokenCandidate(f"c{i}", Origin.ROLLOUT, (i,), str(i), thought=None if bad else 1)
        for i, bad in enumerate(malformed)
    )
    return PolicyCohort("cohort", Window(0, 0, (1,), (2,)), 0, candidates)


def test_without_a_judge_a_malformed_thought_is_never_made_likelier() -> None:
    bad, good = thinking(True), thinking(False)
    assert select_by_origin(bad, None) is Dropped.MALFORMED
    assert select_by_origin(good, None) is good
    rewrite = TokenCandidate("rewrite", Origin.REWRITE, (9,), "9", thought=1)
    beside = replace(bad, candidates=(rewrite, *bad.candidates))
    assert select_by_origin(beside, (Origin.ROLLOUT, Origin.REWRITE)) is Dropped.MALFORMED
    paired = select_by_origin(beside, REWRITE_OVER_ROLLOUT)
    assert not isinstance(paired, Dropped)


def test_a_malformed_thought_is_worth_nothing_and_is_no_failure_of_the_judge() -> None:
    judged = select(thinking(False, True), response(1.0, scores={"match": [1.0]}))
    assert not isinstance(judged, Dropped)
    assert judged.scores == {"c0": 1.0, "c1": 0.0}
    assert (judged.chosen.id, judged.rejected.id, judged.failed) == ("c0", "c1", ())
    assert judged.axis_scores == {"match": {"c0": 1.0}}, "what the judge said, and nothing else"


def test_beside_a_malformed_thought_a_failed_call_has_no_score() -> None:
    judged = select(thinking(False, False, True), response(None, 1.0, scores={"match": [Status.FAILED, 1.0]}))
    assert not isinstance(judged, Dropped)
    assert judged.scores == {"c1": 1.0, "c2": 0.0}
    assert judged.failed == ("c0",)


def test_where_no_call_succeeded_the_malformed_ones_alone_teach_nothing() -> None:
    assert select(thinking(False, True, True), response(None)) is Dropped.TIED
