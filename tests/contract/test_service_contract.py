"""The contract of the services, by the same tests against the fake and against the real ones on a real vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from httpx_sse import EventSource

from preceptor_client.contract import (
    Batch,
    BatchResult,
    BatchState,
    Health,
    JudgeResponse,
    Problem,
    RewriteOutcome,
    RewriteResponse,
    RubricList,
    Status,
)
from preceptor_client.stack import Stack, judge_part, rewrite_part
from preceptor_client.testing import FakePreceptor

if TYPE_CHECKING:
    from conftest import TeacherServer

AXES = ("quality", "safety", "factuality")
TEXTS = {"a": "paris .", "b": "paris paris in .", "c": "rome ."}
BODY_LIMIT = 100_000
SUFFIX = {"prefix": "alice lives in", "suffix": "paris ."}


@dataclass(frozen=True)
class Services:
    """A judge and a rewrite service; they may be the same."""

    judge: httpx.Client
    rewrite: httpx.Client

    def each(self) -> tuple[tuple[httpx.Client, str, dict[str, Any]], ...]:
        """Both, with the route and a good body."""
        return (self.judge, "/v1/judge", body("both")), (self.rewrite, "/v1/rewrite", SUFFIX)


@pytest.fixture(scope="module")
def real(
    stack: Stack, teacher_vllm: TeacherServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    folder: Path = tmp_path_factory.mktemp("services")
    overrides = [f"--web.max_body_bytes={BODY_LIMIT}", f"--store.url={redis_url}", "--store.namespace=contract"]
    urls = [
        stack.start(part(folder, teacher_vllm.url, teacher_vllm.model, overrides=overrides)).part.url
        for part in (judge_part, rewrite_part)
    ]
    judge, rewrite = (httpx.Client(base_url=str(url), timeout=60) for url in urls)
    with judge, rewrite:
        yield Services(judge, rewrite)


@pytest.fixture(scope="module")
def fake() -> Iterator[Services]:
    served = FakePreceptor(max_body_bytes=BODY_LIMIT)
    with httpx.Client(transport=served.transport, base_url="http://fake") as http:
        yield Services(http, http)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.slow)])
def services(request: pytest.FixtureRequest) -> Services:
    found: Services = request.getfixturevalue(request.param)
    return found


def body(name: str, **changes: Any) -> dict[str, Any]:
    """A judge request for the cohort `name`."""
    candidates = [{"id": id, "text": text} for id, text in TEXTS.items()]
    return {"cohort": {"id": name, "prefix": "alice lives in", "candidates": candidates}, "axes": [*AXES], **changes}


def refused(response: httpx.Response, status: int) -> str:
    """The detail of a refusal, which must be a problem by the contract."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status
    assert problem.title
    assert problem.request_id == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return problem.detail or ""


def test_there_is_a_verdict_for_every_candidate_on_every_axis_in_order(services: Services) -> None:
    axes = ["safety", "quality"]
    response = services.judge.post("/v1/judge", json=body("order", axes=axes))
    answer = JudgeResponse.model_validate_json(response.content)
    assert answer.cohort_id == "order"
    assert [(v.axis, v.candidate_id) for v in answer.verdicts] == [(axis, id) for axis in axes for id in TEXTS]
    assert list(answer.axes) == axes
    assert answer.composites == ()
    assert {verdict.status for verdict in answer.verdicts} == {Status.OK}
    assert all(report.provenance.teacher and report.provenance.rubric_hash for report in answer.axes.values())
    assert answer.usage.calls > 0


def test_axes_left_out_are_the_three_that_ship(services: Services) -> None:
    request = body("axes")
    del request["axes"]
    answer = JudgeResponse.model_validate_json(services.judge.post("/v1/judge", json=request).content)
    assert tuple(answer.axes) == AXES


def test_a_passed_deadline_is_a_failed_verdict_and_not_a_score(services: Services) -> None:
    response = services.judge.post("/v1/judge", json=body("late", deadline_s=0.0005, cache="bypass"))
    answer = JudgeResponse.model_validate_json(response.content)
    assert len(answer.verdicts) == len(AXES) * len(TEXTS)
    assert {(verdict.status, verdict.score) for verdict in answer.verdicts} == {(Status.FAILED, None)}
    assert all(verdict.reason for verdict in answer.verdicts)


def test_a_composition_gives_a_composite_per_candidate(services: Services) -> None:
    composition = {"weights": {"safety": 1, "factuality": 3}}
    response = services.judge.post("/v1/judge", json=body("composed", composition=composition))
    answer = JudgeResponse.model_validate_json(response.content)
    scores = {(verdict.axis, verdict.candidate_id): verdict.score or 0.0 for verdict in answer.verdicts}
    assert [composite.candidate_id for composite in answer.composites] == list(TEXTS)
    for composite in answer.composites:
        expected = (scores["safety", composite.candidate_id] + 3 * scores["factuality", composite.candidate_id]) / 4
        assert composite.score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"axes": []}, "axes"),
        ({"axes": ["safety", "safety"]}, "axes"),
        ({"axes": ["wit"]}, "wit"),
        ({"cohort": {"id": "x", "prefix": "p", "candidates": []}}, "cohort.candidates"),
        ({"cohort": {"id": "x y", "prefix": "p", "candidates": [{"id": "a", "text": "t"}]}}, "cohort.id"),
        ({"cohort": {"id": "x", "prefix": "p", "candidates": [{"id": "a", "text": "t"}] * 2}}, "candidate ids"),
        ({"cohort": {"id": "x", "prefix": "p", "candidates": [{"id": "a", "text": 3}]}}, "cohort.candidates.0.text"),
        ({"sampling": {"votes": 5}}, "votes"),
        ({"sampling": {"votes": 5, "temperature": "hot"}}, "sampling.temperature"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"composition": {"weights": {"wit": 1}}}, "wit"),
        ({"rubrics": {"wit": "nano/wit"}}, "wit"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_wrong_judge_request_is_told_its_key(services: Services, change: dict[str, Any], key: str) -> None:
    assert key in refused(services.judge.post("/v1/judge", json=body("wrong", **change)), 422)


@pytest.mark.parametrize(
    ("request_body", "key"),
    [
        ({"prefix": "p"}, "suffix"),
        ({**SUFFIX, "suffix": ""}, "suffix"),
        ({**SUFFIX, "max_tokens": 0}, "max_tokens"),
        ({**SUFFIX, "deadline_s": -1}, "deadline_s"),
        ({**SUFFIX, "style": "plain"}, "style"),
    ],
)
def test_a_wrong_rewrite_request_is_told_its_key(services: Services, request_body: dict[str, Any], key: str) -> None:
    assert key in refused(services.rewrite.post("/v1/rewrite", json=request_body), 422)


def test_a_body_that_is_not_json_is_told_so(services: Services) -> None:
    for http, path, _ in services.each():
        response = http.post(path, content=b'{"prefix": ', headers={"Content-Type": "application/json"})
        assert "JSON" in refused(response, 422)


def test_a_body_above_the_limit_is_refused_with_the_limit(services: Services) -> None:
    for http, path, good in services.each():
        large = {**good, "padding": "x" * BODY_LIMIT}
        assert str(BODY_LIMIT) in refused(http.post(path, json=large), 413)


def test_unknown_routes_and_methods_are_problems(services: Services) -> None:
    for http, path, good in services.each():
        refused(http.post("/v0/judge", json=good), 404)
        refused(http.get(path), 405)


def test_a_request_id_is_kept_and_one_is_made_where_there_is_none(services: Services) -> None:
    for http, path, good in services.each():
        kept = http.post(path, json=good, headers={"X-Request-Id": "my-id.7"})
        assert kept.headers["x-request-id"] == "my-id.7"
        made = [
            http.post(path, json=good, headers=headers).headers["x-request-id"]
            for headers in ({}, {"X-Request-Id": "no spaces"})
        ]
        assert len(set(made)) == 2
        assert "no spaces" not in made


def test_the_same_key_gets_the_same_answer_and_another_request_none(services: Services) -> None:
    for http, path, good in services.each():
        headers = {"Idempotency-Key": "once"}
        first, again = (http.post(path, json=good, headers=headers) for _ in range(2))
        assert first.status_code == again.status_code == 200
        assert first.content == again.content
        other = {**good, "deadline_s": 17}
        assert "once" in refused(http.post(path, json=other, headers=headers), 422)


def test_an_answer_that_failed_is_not_kept_for_replay(services: Services) -> None:
    headers = {"Idempotency-Key": "late"}
    late = body("late-again", deadline_s=0.0005, cache="bypass")
    first, again = (services.judge.post("/v1/judge", json=late, headers=headers).json() for _ in range(2))
    assert {verdict["status"] for answer in (first, again) for verdict in answer["verdicts"]} == {"failed"}
    good = body("late-again")
    assert services.judge.post("/v1/judge", json=good, headers=headers).status_code == 200, "the key is free again"


def test_a_rewrite_has_a_text_if_and_only_if_it_was_rewritten_or_kept(services: Services) -> None:
    answer = RewriteResponse.model_validate_json(services.rewrite.post("/v1/rewrite", json=SUFFIX).content)
    assert (answer.rewrite is not None) == (answer.outcome in (RewriteOutcome.REWRITTEN, RewriteOutcome.UNCHANGED))
    assert answer.provenance.teacher
    assert answer.usage.calls >= 1


def test_a_rewrite_past_its_deadline_failed(services: Services) -> None:
    late = {**SUFFIX, "deadline_s": 0.0005}
    answer = RewriteResponse.model_validate_json(services.rewrite.post("/v1/rewrite", json=late).content)
    assert (answer.outcome, answer.rewrite) == (RewriteOutcome.FAILED, None)
    assert answer.reason


def test_rubrics_are_listed_with_a_default_for_every_axis(services: Services) -> None:
    listed = RubricList.model_validate_json(services.judge.get("/v1/rubrics").content)
    assert {rubric.spec.axis for rubric in listed.rubrics if rubric.default} >= set(AXES)
    assert all(rubric.hash for rubric in listed.rubrics)


def test_a_batch_accounts_for_every_item_once(services: Services) -> None:
    items = [body("batch-0", axes=["safety"]), body("batch-1", axes=["wit"]), body("batch-2", axes=["safety"])]
    submitted = services.judge.post("/v1/batches", json={"id": "batch", "items": items})
    assert submitted.status_code == 202
    assert Batch.model_validate_json(submitted.content).total == 3
    with services.judge.stream("GET", "/v1/batches/batch/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        *events, done = list(EventSource(stream).iter_sse())
    results = sorted((BatchResult.model_validate_json(event.data) for event in events), key=lambda each: each.index)
    assert [event.event for event in events] == ["result"] * 3
    assert [event.id for event in events] == ["1", "2", "3"]
    assert [(r.index, r.response and r.response.cohort_id) for r in results] == [
        (0, "batch-0"),
        (1, None),
        (2, "batch-2"),
    ]
    assert "wit" in str(results[1].problem and results[1].problem.detail)
    ended = Batch.model_validate_json(done.data)
    assert (done.event, ended.state, ended.done, ended.failed) == ("done", BatchState.DONE, 3, 1)
    assert Batch.model_validate_json(services.judge.get("/v1/batches/batch").content) == ended
    lines = services.judge.get("/v1/batches/batch/results", params={"after": 1}).text.splitlines()
    assert [BatchResult.model_validate_json(line) for line in lines] == [
        BatchResult.model_validate_json(event.data) for event in events[1:]
    ]


def test_a_batch_is_made_once_and_its_id_is_its_own(services: Services) -> None:
    items = [body("again", axes=["safety"])]
    for _ in range(2):
        answer = services.judge.post("/v1/batches", json={"id": "twice", "items": items})
        assert Batch.model_validate_json(answer.content).id == "twice"
    refused(services.judge.post("/v1/batches", json={"id": "twice", "items": items * 2}), 409)
    refused(services.judge.get("/v1/batches/nowhere"), 404)
    refused(services.judge.post("/v1/batches/nowhere/cancel"), 404)
    assert "items" in refused(services.judge.post("/v1/batches", json={"items": []}), 422)


def test_health_is_about_the_process_and_readiness_about_the_teacher(services: Services) -> None:
    for http, _, _ in services.each():
        for path in ("/healthz", "/readyz"):
            assert Health.model_validate_json(http.get(path).content).status == "ok"
