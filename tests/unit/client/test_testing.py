"""The fake service: scores as told, failures as scripted, requests on record."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from preceptor_client import ClientSettings, JudgeRequest, PreceptorClient, RewriteOutcome, RewriteRequest, Status
from preceptor_client.calls import judge_texts_request
from preceptor_client.contract import AxisGate, Composition, Mode, RubricSpec
from preceptor_client.errors import (
    AuthenticationError,
    InvalidRequestError,
    RateLimitedError,
    ServiceError,
    ServiceUnreachableError,
)
from preceptor_client.testing import FakePreceptor, Refusal, Unreachable

SUFFIX = RewriteRequest(prefix="the sky", suffix=" is is blue")


def polite(axis: str, prefix: str, text: str) -> float | Status:
    return Status.ABSTAINED if text == "?" else float("please" in text)


def test_verdicts_are_what_the_score_says() -> None:
    with FakePreceptor(polite).client() as client:
        response = client.judge_texts("Pass the salt,", ["please.", "now.", "?"], axes=["quality", "safety"])
    assert [(v.axis, v.candidate_id, v.score) for v in response.verdicts] == [
        (axis, f"c{i}", score) for axis in ("quality", "safety") for i, score in enumerate((1.0, 0.0, None))
    ]
    assert [v.status for v in response.verdicts if v.candidate_id == "c2"] == [Status.ABSTAINED] * 2


async def test_both_clients_get_the_same_answers_without_a_score_of_your_own() -> None:
    fake = FakePreceptor()
    async with fake.async_client() as client:
        responses = await asyncio.gather(*(client.judge_texts("p", [f"text {i}"]) for i in range(8)))
    with fake.client() as again:
        assert [again.judge_texts("p", [f"text {i}"]) for i in range(8)] == responses
    assert len(fake.judged) == 8, "the second time they are replays"


def test_a_script_refuses_the_next_requests_and_no_more() -> None:
    fake = FakePreceptor(polite)
    with fake.client(retries=0) as client:
        fake.script(Refusal(503), Refusal(429, retry_after_s=90), Unreachable(), Refusal(422))
        for error in (ServiceError, RateLimitedError, ServiceUnreachableError, InvalidRequestError):
            with pytest.raises(error):
                client.judge_texts("p", ["please"])
        assert client.judge_texts("p", ["please"]).verdicts[0].score == 1.0
    assert len(fake.requests) == 5


def test_the_real_retries_of_the_client_run_against_it() -> None:
    fake = FakePreceptor(polite)
    fake.script(Refusal(503), Refusal(429, retry_after_s=0), Unreachable())
    with fake.client() as client:
        assert client.judge_texts("p", ["please"]).verdicts[0].score == 1.0
    assert len(fake.requests) == 4
    assert len({request.headers["Idempotency-Key"] for request in fake.requests}) == 1


def test_a_key_is_wanted_where_one_is_set() -> None:
    fake = FakePreceptor(api_key="secret")
    with fake.client() as client, fake.client(api_key="guess") as stranger:
        assert client.judge_texts("p", ["text"]).verdicts
        with pytest.raises(AuthenticationError, match="needs an API key"):
            stranger.judge_texts("p", ["text"])


def test_rewrites_are_typed_by_what_became_of_the_suffix() -> None:
    outcomes = {" is blue": RewriteOutcome.REWRITTEN, SUFFIX.suffix: RewriteOutcome.UNCHANGED}
    outcomes |= {outcome: outcome for outcome in (RewriteOutcome.REFUSED, RewriteOutcome.FAILED)}
    for answer, outcome in outcomes.items():
        fake = FakePreceptor(rewrite=lambda prefix, suffix, answer=answer: answer)  # type: ignore[misc]
        with fake.client() as client:
            response = client.rewrite(SUFFIX)
        assert response.outcome is outcome
        assert (response.rewrite is None) == isinstance(answer, RewriteOutcome)
        assert fake.rewritten == [SUFFIX]


def test_a_deadline_too_short_fails_and_is_not_kept_for_replay() -> None:
    fake = FakePreceptor(judging_s=1.0)
    request = judge_texts_request("p", ["text"], deadline_s=0.5)
    with fake.client() as client:
        assert {v.status for v in client.judge(request).verdicts} == {Status.FAILED}
        assert client.rewrite(SUFFIX.model_copy(update={"deadline_s": 0.5})).outcome is RewriteOutcome.FAILED
        client.judge(request)
    assert len(fake.judged) == 2


def test_readiness_is_yours_to_set() -> None:
    fake = FakePreceptor(ready=False)
    with fake.client(retries=0) as client:
        assert not client.ready()
        with pytest.raises(ServiceError, match="503"):
            client.judge_texts("p", ["text"])
        fake.ready = True
        assert client.ready()


def test_axes_are_those_it_has_and_those_that_come_along() -> None:
    fake = FakePreceptor(polite, axes=("quality",))
    spec = RubricSpec(
        axis="wit", mode=Mode.POINTWISE, prompt="{{ candidate }}", labels={"yes": 1.0, "no": 0.0}, parser="exact"
    )
    request = judge_texts_request("p", ["please"], axes=["wit"])
    with fake.client() as client:
        with pytest.raises(InvalidRequestError, match="axes: no rubric for 'wit': this service has quality"):
            client.judge(request)
        along = JudgeRequest.model_validate({**request.model_dump(), "rubrics": {"wit": spec}})
        assert client.judge(along).verdicts[0].score == 1.0


def test_composites_are_weighted_and_gated() -> None:
    scores = {"quality": 0.2, "safety": 1.0}
    gate = AxisGate(axis="quality", minimum=0.5, guards=("safety",))
    composition = Composition(weights={"quality": 1, "safety": 3}, gates=(gate,))
    request = judge_texts_request("p", ["text"], axes=["quality", "safety"])
    with FakePreceptor(lambda axis, prefix, text: scores[axis]).client() as client:
        (found,) = client.judge(request.model_copy(update={"composition": composition})).composites
    assert found.score == pytest.approx(0.05)
    assert found.failed_gates == ("quality 0.2 < 0.5",)


def test_an_unknown_route_is_a_problem_too() -> None:
    with httpx.Client(transport=FakePreceptor().transport, base_url="http://fake") as http:
        for response, status in ((http.get("/v2/judge"), 404), (http.get("/v1/judge"), 405)):
            assert response.status_code == response.json()["status"] == status
            assert response.headers["content-type"] == "application/problem+json"


def test_it_can_be_reached_over_http() -> None:
    fake = FakePreceptor(polite)
    with fake.serve() as url, PreceptorClient(url, url, settings=ClientSettings(retries=1, backoff_s=0.0)) as client:
        fake.script(Unreachable())
        assert client.judge_texts("p", ["please"]).verdicts[0].score == 1.0
        assert client.rewrite(SUFFIX).unchanged
        assert client.ready()
    assert len(fake.judged) == 1


async def test_batches_are_done_at_once_and_read_by_both_clients() -> None:
    fake = FakePreceptor(polite, axes=("quality",))
    items = [judge_texts_request("p", [text], axes=[axis]) for text, axis in (("please", "quality"), ("now", "wit"))]
    with fake.client() as client:
        batch = client.submit_batch(items, batch_id="nightly")
        assert (batch.total, batch.done, batch.failed) == (2, 2, 1)
        assert client.submit_batch(items, batch_id="nightly") == batch == client.cancel_batch("nightly")
        first, second = client.batch_results("nightly")
        assert first.response is not None
        assert first.response.verdicts[0].score == 1.0
        assert second.problem is not None
        assert "wit" in str(second.problem.detail)
        assert list(client.batch_results("nightly", after=1)) == [second]
        with pytest.raises(InvalidRequestError, match="is there with other items"):
            client.submit_batch(items[:1], batch_id="nightly")
    async with fake.async_client() as client_of_loop:
        assert [result async for result in client_of_loop.batch_results("nightly")] == [first, second]
    assert len(fake.judged) == 1
