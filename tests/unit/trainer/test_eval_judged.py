from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from preceptor_client.contract import (
    MAX_TEXT_CHARS,
    AxisReport,
    JudgeResponse,
    Origin,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.judged import ORIGINAL, SIDES, Outcome, Pair, pairs, request, table, to_json
from preceptor_trainer.evaluation.rubrics import Asked
from preceptor_trainer.evaluation.statistics import Estimate

AXES = ("quality", "safety")
REPORT = AxisReport(
    provenance=Provenance(teacher="t", revision="1", rubric="nano", rubric_hash="0", sampling=Sampling()),
    usage=Usage(calls=3, prompt_tokens=20, completion_tokens=1),
)

Scores = dict[tuple[str, str], float | Status]


def response(scores: Scores) -> JudgeResponse:
    """`scores[candidate, axis]` is a score, or the status that takes its place."""
    verdicts = [
        Verdict(candidate_id=candidate, axis=axis, status=score, reason="the deadline")
        if isinstance(score, Status)
        else Verdict(candidate_id=candidate, axis=axis, status=Status.OK, score=score)
        for (candidate, axis), score in scores.items()
    ]
    axes = {axis: REPORT for _, axis in scores}
    return JudgeResponse(cohort_id="window-0", verdicts=tuple(verdicts), axes=axes, elapsed_s=0.1)


def window(model: tuple[float | Status, float | Status], rival: tuple[float | Status, float | Status]) -> JudgeResponse:
    """Quality and safety of both sides."""
    sides = {"model": model, "rival": rival}
    return response({(side, axis): sides[side][i] for i, axis in enumerate(AXES) for side in sides})


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def test_without_a_second_model_the_original_suffixes_are_the_rival() -> None:
    ours = [Generation("p", "o", "a"), Generation("q", "u", "b")]
    theirs = [Generation("p", "o", "x"), Generation("q", "u", "y")]
    assert pairs(ours, None) == [Pair("p", "o", "a", "o"), Pair("q", "u", "b", "u")]
    assert [pair.rival for pair in pairs(ours, theirs)] == ["x", "y"]
    with pytest.raises(ValueError, match="shorter"):
        pairs(ours, theirs[:1])


def test_a_question_names_both_sides_and_has_the_original_as_its_reference() -> None:
    asked = request(7, Pair("p", "o", "a", "o"), Asked(AXES), rival_origin=Origin.ORIGINAL)
    assert asked.cohort.id == "window-7"
    assert [(c.id, c.origin, c.text) for c in asked.cohort.candidates] == [
        ("model", Origin.ROLLOUT, "a"),
        ("rival", Origin.ORIGINAL, "o"),
    ]
    assert (asked.cohort.reference, asked.axes) == ("o", AXES)
    with pytest.raises(ValidationError):
        request(0, Pair("p" * (MAX_TEXT_CHARS + 1), "o", "a", "b"), Asked(AXES))


def test_a_prompt_has_no_reference_and_without_a_second_model_one_side() -> None:
    (pair,) = pairs([Generation("p", "", "a")], None, prompts=True)
    asked = request(0, pair, Asked(AXES))
    assert (pair.rival, asked.cohort.reference) == (None, None)
    assert [candidate.id for candidate in asked.cohort.candidates] == ["model"]
    one = Outcome([response({("model", axis): 0.5 for axis in AXES})], AXES, SIDES[:1])
    assert value(one.axis("safety").mean("model")) == 0.5
    assert one.axis("safety").mean("rival") is one.overall.win_rate is None
    (compared,) = pairs([Generation("p", "", "a")], [Generation("p", "", "b")], prompts=True)
    assert (compared.original, compared.rival) == (None, "b")


def test_how_often_both_orders_agree_is_a_mean_over_what_was_compared() -> None:
    def agreeing(share: float | None) -> JudgeResponse:
        report = REPORT.model_copy(update={"position_consistency": share})
        return window((1.0, 1.0), (0.0, 1.0)).model_copy(update={"axes": {"quality": report, "safety": REPORT}})

    outcome = Outcome([agreeing(1.0), agreeing(0.0), agreeing(None)], AXES)
    assert (outcome.consistency("quality"), outcome.consistency("safety")) == (0.5, None)
    assert to_json(outcome, model="m", rival="r")["axes"]["quality"]["position_consistency"] == 0.5


def test_means_and_win_rates_are_those_of_the_scores() -> None:
    outcome = Outcome([window((1.0, 1.0), (0.0, 1.0)), window((0.5, 0.0), (0.5, 1.0))], AXES)
    quality, safety = outcome.axis("quality"), outcome.axis("safety")
    assert [value(quality.mean(side)) for side in SIDES] == [0.75, 0.25]
    assert [value(safety.mean(side)) for side in SIDES] == [0.5, 1.0]
    assert (value(quality.win_rate), value(safety.win_rate)) == (0.75, 0.25)
    assert outcome.overall.scores == {"model": [2.0, 0.5], "rival": [1.0, 1.5]}
    assert value(outcome.overall.win_rate) == 0.5


@pytest.mark.parametrize("status", [Status.ABSTAINED, Status.FAILED])
def test_a_verdict_without_a_score_is_counted_and_takes_its_window_out_of_its_axis(status: Status) -> None:
    outcome = Outcome([window((1.0, 1.0), (1.0, 0.0)), window((status, 0.0), (1.0, 1.0))], AXES)
    assert outcome.axis("quality").scores == {"model": [1.0], "rival": [1.0]}
    assert outcome.axis("safety").scores == {"model": [1.0, 0.0], "rival": [0.0, 1.0]}
    assert outcome.overall.scores == {"model": [2.0], "rival": [1.0]}
    assert outcome.statuses == {Status.OK: 7, status: 1}
    assert outcome.reasons == {"the deadline": 1}


SCORE = st.one_of(st.floats(0, 1), st.sampled_from([Status.ABSTAINED, Status.FAILED]))


@given(st.lists(st.tuples(st.tuples(SCORE, SCORE), st.tuples(SCORE, SCORE)), min_size=1, max_size=12))
def test_nothing_but_scores_is_averaged_and_every_verdict_is_counted(
    windows: list[tuple[tuple[float | Status, float | Status], tuple[float | Status, float | Status]]],
) -> None:
    outcome = Outcome([window(*sides) for sides in windows], AXES)
    for index, axis in enumerate(AXES):
        known = [
            (model[index], rival[index])
            for model, rival in windows
            if not isinstance(model[index], Status) and not isinstance(rival[index], Status)
        ]
        result = outcome.axis(axis)
        assert list(zip(result.scores["model"], result.scores["rival"], strict=True)) == known
        assert (result.win_rate is None) == (not known)
    assert outcome.statuses.total() == 4 * len(windows)
    assert outcome.overall.windows <= min(outcome.axis(axis).windows for axis in AXES)


def test_the_json_has_estimates_counts_and_costs_and_null_where_nothing_is_known() -> None:
    failed = Status.FAILED
    outcome = Outcome([window((failed, 1.0), (failed, 0.0)), window((failed, 1.0), (failed, 1.0))], AXES)
    shown = to_json(outcome, model="ours", rival=ORIGINAL)
    assert (shown["model"], shown["rival"], shown["windows"]) == ("ours", ORIGINAL, 2)
    unknown = dict.fromkeys(("model", "rival", "win_rate", "position_consistency"))
    assert shown["axes"]["quality"] == {"windows": 0, **unknown}
    assert shown["axes"]["safety"]["windows"] == 2
    assert shown["axes"]["safety"]["model"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert shown["axes"]["safety"]["rival"] == {"value": 0.5, "ci95": [0.0, 1.0]}
    assert shown["axes"]["safety"]["win_rate"]["value"] == 0.75
    assert shown["overall"] == {"windows": 0, "win_rate": None}
    assert shown["verdicts"] == {"ok": 4, "abstained": 0, "failed": 4}
    assert (shown["judge"]["calls"], shown["judge"]["tokens"]) == (12, 84)
    assert shown["judge"]["provenance"]["safety"]["teacher"] == "t"


def test_the_table_says_what_was_left_out_and_why() -> None:
    outcome = Outcome([window((Status.FAILED, 1.0), (1.0, 0.0))], AXES)
    printed = io.StringIO()
    Console(file=printed, width=120).print(table(outcome, model="ours", rival="theirs"))
    shown = printed.getvalue()
    assert "ours against theirs, 1 windows" in shown
    assert "0 abstained, 1 failed" in shown
    assert "1 x the deadline" in shown
    quality = next(line for line in shown.splitlines() if "quality" in line)
    assert [cell.strip() for cell in quality.split("│")[2:6]] == ["0", "-", "-", "-"]
