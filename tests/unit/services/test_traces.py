"""What the services tell of a cohort's story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import pytest
from opentelemetry.trace import StatusCode

from preceptor_client import tracing
from preceptor_client.contract import Candidate, Cohort, JudgeRequest
from preceptor_services.batching import Batcher
from preceptor_services.engine import Engine, Generation, Prompt
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings, JudgingSettings
from preceptor_services.web import ProblemError, base_app
from traced import Recorded, about, id_of, parent_of, recording, said, traceparent_of

OpenEngine = Callable[..., Awaitable[Engine]]
PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
REQUEST = JudgeRequest(
    cohort=Cohort(
        id="c-1",
        prefix="a private prefix",
        candidates=tuple(Candidate(id=f"r{n}", text=text) for n, text in enumerate(("good text", "bad text"))),
    ),
    axes=("quality", "safety"),
)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as recorded:
        yield recorded


async def test_a_judged_cohort_is_told_with_its_axes_and_cost_and_every_call_below_it(
    recorded: Recorded, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    judge = Judge(await open_engine(faulty_server()), load_rubrics("nano"), JudgingSettings(), metrics)
    response = await judge.judge(REQUEST)
    cohort = recorded.one("judge cohort")
    assert [about(cohort, name) for name in ("cohort", "candidates", "axes", "schedule")] == [
        *("c-1", 2, ("quality", "safety"), "all_pairs")
    ]
    assert [about(cohort, name) for name in ("calls", "tokens", "verdicts_ok", "verdicts_failed")] == [
        *(response.usage.calls, response.usage.tokens, 4, 0)
    ]
    assert cohort.status.status_code is StatusCode.UNSET
    calls, requests = recorded.named("engine call"), recorded.named("engine request")
    assert {parent_of(call) for call in calls} == {id_of(cohort)}
    assert {parent_of(request) for request in requests} == {id_of(call) for call in calls}
    assert sum(int(str(about(request, "prompts"))) for request in requests) == response.usage.calls == 4
    for text in ("private", "good", "bad"):
        assert text not in said(recorded.all)


async def test_verdicts_that_failed_are_a_status_and_no_exception(
    recorded: Recorded, open_engine: OpenEngine, faulty_server: type, metrics: Metrics
) -> None:
    server = faulty_server(faults=[httpx.Response(500, json={"error": {"message": "good text is bad"}})])
    judge = Judge(await open_engine(server, retries=0), load_rubrics("nano"), JudgingSettings(), metrics)
    await judge.judge(REQUEST.model_copy(update={"axes": ("safety",)}))
    cohort, call = recorded.one("judge cohort"), recorded.one("engine call")
    assert [about(cohort, name) for name in ("verdicts_ok", "verdicts_failed")] == [0, 2]
    assert (cohort.status.status_code, cohort.status.description) == (StatusCode.ERROR, "verdicts failed")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "broken")
    assert not any(span.events for span in recorded.all)
    assert "good" not in said(recorded.all)


async def test_questions_of_several_requests_share_a_batch_that_each_of_them_leads_to(
    recorded: Recorded, open_engine: OpenEngine, faulty_server: type
) -> None:
    batcher = Batcher(await open_engine(faulty_server()), max_prompts=2)
    deadline = asyncio.get_running_loop().time() + 20

    async def ask(name: str) -> None:
        with tracing.span(name):
            await batcher.ask(Prompt("<safety> good"), Generation("completion", max_tokens=1), deadline=deadline)

    await asyncio.gather(ask("first"), ask("second"))
    first, second = recorded.named("batched question")
    assert {parent_of(first), parent_of(second)} == {id_of(recorded.one("first")), id_of(recorded.one("second"))}
    batch = recorded.one("engine batch")
    assert {parent_of(batch), batch.links[0].context.span_id} == {id_of(first), id_of(second)}
    assert parent_of(recorded.one("engine call")) == id_of(batch)


@pytest.fixture
async def client(metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    engine = Engine(EngineSettings(), metrics)
    app = base_app("t", "t", engine, metrics, max_body_bytes=2048)

    @app.post("/echo/{what}")
    async def echo(what: str) -> dict[str, str | None]:
        if what == "busy":
            raise ProblemError(503, "later")
        return {"within": tracing.traceparent()}

    async with engine, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        yield client


async def test_a_request_continues_the_trace_it_comes_with_and_health_is_not_told(
    recorded: Recorded, client: httpx.AsyncClient
) -> None:
    reply = await client.post("/echo/x", headers={"traceparent": PARENT})
    await client.get("/healthz")
    await client.get("/metrics")
    [span] = recorded.all
    assert (span.name, span.kind.name, parent_of(span)) == ("POST /echo/{what}", "SERVER", int(PARENT[36:52], 16))
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/echo/{what}",
        "http.response.status_code": 200,
    }
    assert reply.json() == {"within": traceparent_of(span)}


async def test_a_header_that_is_no_traceparent_begins_a_trace_and_an_answer_of_5xx_is_a_failure(
    recorded: Recorded, client: httpx.AsyncClient
) -> None:
    assert (await client.post("/echo/busy", headers={b"traceparent": b"\xff" * 50})).status_code == 503
    [span] = recorded.all
    assert span.parent is None
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "503")
