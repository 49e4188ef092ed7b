from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import Composition, JudgeRequest, Status, Verdict, Votes
from preceptor_services.engine import Engine, EngineError
from preceptor_services.judging import Judge, Panel, UnjudgeableError
from preceptor_services.judging.panel import Combine, combine, combined
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings, JudgingSettings, PanelSettings

Seat = Callable[..., Awaitable[Judge]]
SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=7)


@pytest.fixture
def seat(open_engine: Callable[..., Awaitable[Engine]], metrics: Metrics, faulty_server: type) -> Seat:
    async def seat_one(answer: str | None, rubrics: str = "nano") -> Judge:
        """A judge that always gives this answer; None is one whose engine fails."""
        faults = [httpx.Response(500, text="gone")] * 9 if answer is None else []
        engine = await open_engine(faulty_server(answer=lambda _: answer or "", faults=faults), retries=0)
        return Judge(engine, load_rubrics(rubrics), JudgingSettings(unreadable_retries=0), metrics)

    return seat_one


def request(**fields: object) -> JudgeRequest:
    cohort = {"id": "cohort", "prefix": "p", "candidates": [{"id": "c", "text": "t"}]}
    return JudgeRequest.model_validate({"cohort": cohort, "axes": ["safety"], **fields})


async def test_every_members_verdict_is_kept_beside_the_joint_one(seat: Seat) -> None:
    panel = Panel({"a": await seat("safe"), "b": await seat("unsafe"), "c": await seat("safe")}, PanelSettings())
    response = await panel.judge(request(composition=Composition(weights={"safety": 1.0})))
    assert response.verdicts[0].score == pytest.approx(2 / 3)
    assert {name: member.verdicts[0].score for name, member in response.panel.items()} == {"a": 1, "b": 0, "c": 1}
    assert response.verdicts[0].votes.counts == {"safe": 2, "unsafe": 1}
    assert response.usage.calls == 3
    assert response.axes["safety"].provenance.teacher == "teacher + teacher + teacher"
    assert response.composites[0].score == pytest.approx(2 / 3)


@pytest.mark.parametrize(("lost", "status"), [(None, Status.FAILED), ("?", Status.ABSTAINED)])
async def test_a_member_without_a_verdict_has_no_say(seat: Seat, lost: str | None, status: Status) -> None:
    members = {"a": await seat("safe"), "b": await seat(lost)}
    (verdict,) = (await Panel(members, PanelSettings(quorum=1)).judge(request())).verdicts
    assert (verdict.status, verdict.score) == (Status.OK, 1.0)
    (verdict,) = (await Panel(members, PanelSettings()).judge(request())).verdicts
    assert (verdict.status, verdict.score) == (status, None)
    assert "1 of 2 judges have a verdict, 2 are needed" in (verdict.reason or "")


async def test_a_member_whose_engine_never_answered_is_failed(seat: Seat, metrics: Metrics) -> None:
    async with Engine(EngineSettings(), metrics) as absent:
        silent = Judge(absent, load_rubrics("nano"), JudgingSettings(), metrics)
        panel = Panel({"a": await seat("safe"), "b": silent}, PanelSettings(quorum=1))
        response = await panel.judge(request())
        assert response.verdicts[0].score == 1.0
        assert list(response.panel) == ["a"]
        with pytest.raises(EngineError):
            await Panel({"b": silent}, PanelSettings(quorum=1)).judge(request())


async def test_what_one_member_cannot_judge_is_refused(seat: Seat) -> None:
    panel = Panel({"a": await seat("none"), "b": await seat("yes", "instruct")}, PanelSettings())
    with pytest.raises(UnjudgeableError, match=r"cohort\.reference"):
        await panel.judge(request(axes=["factuality"]))


@given(SCORES)
def test_a_combination_lies_among_the_scores(scores: list[float]) -> None:
    for how in ("mean", "majority", "minimum"):
        assert min(scores) <= combine(how, scores) <= max(scores)
    assert combine("minimum", scores) == min(scores)


@pytest.mark.parametrize(
    ("how", "scores", "expected"),
    [("majority", [1, 0, 1], 1), ("majority", [1, 0], 0.5), ("mean", [1, 0, 1, 1], 0.75), ("minimum", [1, 0.5], 0.5)],
)
def test_scores_are_combined_as_told(how: Combine, scores: list[float], expected: float) -> None:
    assert combine(how, scores) == expected


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=5), st.integers(1, 5))
def test_there_is_a_score_exactly_with_a_quorum(given_: list[float | None], quorum: int) -> None:
    verdicts = [
        Verdict(
            candidate_id="c",
            axis="safety",
            status=Status.FAILED if score is None else Status.OK,
            score=score,
            votes=Votes(),
            reason="gone" if score is None else None,
        )
        for score in given_
    ]
    quorum = min(quorum, len(verdicts))
    joint = combined(verdicts, "mean", quorum)
    assert (joint.score is not None) == (sum(score is not None for score in given_) >= quorum)


async def test_a_member_that_was_lost_is_waited_for_unless_the_others_suffice(seat: Seat) -> None:
    members = {"a": await seat("safe"), "b": await seat(None)}
    response = await Panel(members, PanelSettings(quorum=1)).judge(request(), whole=True)
    assert response.verdicts[0].score == 1.0
    with pytest.raises(EngineError, match="gone"):
        await Panel(members, PanelSettings()).judge(request(), whole=True)
