"""What is sent, what is sent again and what an answer means, without any transport."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client import Candidate, ClientSettings, Cohort, JudgeRequest, JudgeResponse, RewriteRequest, Sampling
from preceptor_client.calls import (
    ALL_AXES,
    Call,
    health_of,
    http_settings,
    judge_call,
    judge_texts_request,
    rewrite_call,
)
from preceptor_client.contract import RubricSpec
from preceptor_client.errors import (
    AuthenticationError,
    InvalidRequestError,
    PreceptorError,
    RateLimitedError,
    ServiceError,
    ServiceUnreachableError,
    UnexpectedResponseError,
)

SETTINGS = ClientSettings(judge_url="http://judge:1/", rewrite_url="http://rewrite:2", api_key="secret")
GOOD = b'{"cohort_id":"c1","verdicts":[],"axes":{},"elapsed_s":0.1}'
TRANSIENT = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("slow"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("closed without a response"),
]


def a_request(name: str = "c1", text: str = "blue", deadline_s: float | None = None) -> JudgeRequest:
    cohort = Cohort(id=name, prefix="the sky is", candidates=(Candidate(id="a", text=text),))
    return JudgeRequest(cohort=cohort, deadline_s=deadline_s)


def a_call(settings: ClientSettings = SETTINGS, **changes: float) -> Call[JudgeResponse]:
    return judge_call(a_request(), settings.model_copy(update=changes), None)


def answer(status: int, content: bytes = b"", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=content, headers=names, request=httpx.Request("POST", "http://judge:1"))


def test_a_judge_call_goes_to_the_versioned_route_with_its_headers() -> None:
    call = a_call()
    arguments = call.arguments()
    assert arguments["url"] == "http://judge:1/v1/judge"
    assert arguments["headers"]["Authorization"] == "Bearer secret"
    assert arguments["headers"]["X-Request-Id"] == call.request_id
    assert arguments["headers"]["Idempotency-Key"].startswith("c1:")
    assert JudgeRequest.model_validate_json(arguments["content"]) == a_request()


def test_a_rewrite_call_goes_to_the_rewrite_service() -> None:
    call = rewrite_call(RewriteRequest(prefix="a", suffix="b"), SETTINGS, None)
    assert call.arguments()["url"] == "http://rewrite:2/v1/rewrite"


def test_no_key_means_no_authorization_header() -> None:
    assert "Authorization" not in a_call(ClientSettings()).arguments()["headers"]


def test_equal_content_has_an_equal_key_and_other_content_another() -> None:
    keys = [
        judge_call(request, SETTINGS, None).idempotency_key
        for request in (a_request(), a_request(), a_request("c2"), a_request(text="red"))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert judge_call(a_request(), SETTINGS, "mine").idempotency_key == "mine"


def test_what_is_to_be_judged_anew_is_no_repeat_of_an_earlier_call() -> None:
    anew = a_request().model_copy(update={"cache": "bypass"})
    calls = [judge_call(anew, SETTINGS, None) for _ in range(2)]
    keys = [[call.arguments()["headers"]["Idempotency-Key"] for _ in range(2)] for call in calls]
    assert keys[0][0] == keys[0][1], "every attempt of a call has the same"
    assert keys[0] != keys[1]


def test_a_key_is_no_longer_than_services_take() -> None:
    assert len(judge_call(a_request("c" * 128), SETTINGS, None).idempotency_key or "") <= 128


def test_the_read_time_out_follows_the_requests_deadline() -> None:
    with_deadline = judge_call(a_request(deadline_s=300), SETTINGS, None).arguments()["timeout"]
    assert with_deadline.read == 310
    assert a_call().arguments()["timeout"].read == SETTINGS.read_timeout_s
    assert a_call().arguments()["timeout"].connect == SETTINGS.connect_timeout_s


@pytest.mark.parametrize("outcome", [*TRANSIENT, answer(502), answer(503), answer(504), answer(429, Retry_After="0")])
def test_what_may_pass_by_itself_is_tried_again(outcome: httpx.Response | httpx.TransportError) -> None:
    assert a_call().delay_after(1, outcome) is not None


@pytest.mark.parametrize(
    "outcome", [answer(200, GOOD), answer(400), answer(401), answer(422), answer(500), httpx.ReadTimeout("too long")]
)
def test_what_cannot_pass_by_itself_is_not(outcome: httpx.Response | httpx.TransportError) -> None:
    assert a_call().delay_after(1, outcome) is None


def test_a_429_that_names_no_time_is_not_tried_again() -> None:
    assert a_call().delay_after(1, answer(429)) is None
    assert a_call().delay_after(1, answer(429, Retry_After="soon")) is None


@given(attempt=st.integers(1, 40), base=st.floats(0.01, 10), most=st.floats(0.01, 60))
def test_pauses_grow_to_a_bound_with_jitter_and_end_with_the_retries(attempt: int, base: float, most: float) -> None:
    call = a_call(backoff_s=base, backoff_max_s=most, retries=20)
    delay = call.delay_after(attempt, answer(503))
    if attempt > 20:
        assert delay is None
    else:
        ceiling = min(most, base * 2 ** (attempt - 1))
        assert delay is not None
        assert ceiling / 2 <= delay <= ceiling


def test_the_service_decides_the_pause_if_it_names_one() -> None:
    assert a_call().delay_after(1, answer(503, Retry_After="7")) == 7
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    delay = a_call().delay_after(1, answer(429, Retry_After=moment))
    assert delay is not None
    assert 25 < delay <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert a_call().delay_after(1, answer(429, Retry_After=past)) == 0


def test_a_pause_longer_than_the_caller_allows_is_refused_at_once() -> None:
    assert a_call().delay_after(1, answer(503, Retry_After="3600")) is None


@given(st.text(max_size=40).filter(lambda text: text.isprintable() and text.isascii()))
def test_no_retry_after_header_can_break_a_call(text: str) -> None:
    delay = a_call().delay_after(1, answer(503, Retry_After=text))
    assert delay is None or delay >= 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, InvalidRequestError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (429, RateLimitedError),
        (500, ServiceError),
        (503, ServiceError),
    ],
)
def test_an_error_status_becomes_its_type_with_what_the_service_said(status: int, kind: type[PreceptorError]) -> None:
    body = f'{{"title":"Nope","status":{status},"detail":"because","request_id":"r9"}}'.encode()
    with pytest.raises(kind, match="Nope: because") as caught:
        a_call().result(answer(status, body, X_Request_Id="r9"))
    assert caught.value.request_id == "r9"
    assert caught.value.problem is not None
    assert caught.value.problem.detail == "because"


def test_an_error_page_of_some_proxy_is_still_a_typed_error() -> None:
    with pytest.raises(ServiceError, match="502 Bad Gateway: <html>"):
        a_call().result(answer(502, b"<html>nginx</html>"))


@pytest.mark.parametrize("outcome", [*TRANSIENT, httpx.ReadTimeout("")])
def test_no_answer_is_a_typed_error_that_names_the_url(outcome: httpx.TransportError) -> None:
    call = a_call()
    with pytest.raises(ServiceUnreachableError, match="http://judge:1/v1/judge") as caught:
        call.result(outcome)
    assert caught.value.request_id == call.request_id


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"cohort_id":"c1"}', GOOD[:-1] + b',"extra":1}'])
def test_an_answer_outside_the_contract_is_an_error(content: bytes) -> None:
    with pytest.raises(UnexpectedResponseError, match="does not follow the contract"):
        a_call().result(answer(200, content))


def test_the_answer_to_another_cohort_is_an_error() -> None:
    with pytest.raises(UnexpectedResponseError, match="cohort 'c2'"):
        a_call().result(answer(200, GOOD.replace(b"c1", b"c2")))


def test_a_good_answer_is_decoded() -> None:
    assert a_call().result(answer(200, GOOD)) == JudgeResponse.model_validate_json(GOOD)


def test_plain_texts_become_a_cohort_whose_id_follows_its_content() -> None:
    sampling = Sampling(votes=3, temperature=1.0)
    request = judge_texts_request("p", ["x", "y"], axes=("safety",), reference="z", sampling=sampling, deadline_s=2)
    assert [(candidate.id, candidate.text) for candidate in request.cohort.candidates] == [("c0", "x"), ("c1", "y")]
    assert (request.axes, request.cohort.reference, request.deadline_s) == (("safety",), "z", 2)
    assert judge_texts_request("p", ["x"]).cohort.id == judge_texts_request("p", ["x"]).cohort.id
    assert judge_texts_request("p", ["x"]).cohort.id != judge_texts_request("q", ["x"]).cohort.id


def test_a_rubric_of_ones_own_brings_its_axis_and_is_asked_alone_or_beside_others() -> None:
    rubric = RubricSpec(
        axis="wit", mode="pointwise", prompt="{{ candidate }}", labels={"yes": 1, "no": 0}, parser="exact"
    )
    alone = judge_texts_request("p", ["x"], rubrics=[rubric])
    assert (alone.axes, alone.rubrics) == (("wit",), {"wit": rubric})
    assert judge_texts_request("p", ["x"], axes=["safety"], rubrics=[rubric]).axes == ("safety", "wit")
    assert judge_texts_request("p", ["x"]).axes == ALL_AXES


def test_health_is_read_from_either_status_and_unavailable_otherwise() -> None:
    assert health_of(answer(200, b'{"status":"ok"}')).status == "ok"
    assert health_of(answer(503, b'{"status":"starting"}')).status == "starting"
    assert health_of(answer(200, b"<html>")).status == "unavailable"
    assert health_of(httpx.ConnectError("refused")).detail == "refused"


def test_proxies_are_used_for_other_machines_only() -> None:
    assert http_settings(ClientSettings())["trust_env"] is False
    assert http_settings(SETTINGS)["trust_env"] is True
