from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from preceptor_client.contract import Health, Problem
from preceptor_services.engine import Engine, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings
from preceptor_services.web import PROBLEM_TYPE, ProblemError, base_app

JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    """An app whose engine is never ready, with routes that fail in each way."""
    engine = Engine(EngineSettings(), metrics)
    app = base_app("t", "t", engine, metrics, max_body_bytes=2048)

    @app.post("/echo/{what}")
    async def echo(what: str, body: dict[str, int]) -> dict[str, int]:
        if what == "bug":
            raise RuntimeError("secret")
        if what == "busy":
            raise ProblemError(503, "later", retry_after_s=7)
        return body

    async with engine, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        yield client


def problem(reply: httpx.Response) -> Problem:
    assert reply.headers["content-type"] == PROBLEM_TYPE
    found = Problem.model_validate_json(reply.content)
    assert found.status == reply.status_code
    assert found.request_id == reply.headers["x-request-id"]
    return found


async def test_every_error_is_a_problem_that_says_what_is_wrong(client: httpx.AsyncClient) -> None:
    invalid = problem(await client.post("/echo/x", json={"a": "text"}))
    assert (invalid.status, invalid.title) == (422, "Unprocessable Entity")
    assert "a: Input should be a valid integer" in (invalid.detail or "")
    assert problem(await client.get("/nothing")).status == 404
    assert problem(await client.get("/echo/x")).status == 405
    assert "not JSON" in (problem(await client.post("/echo/x", content=b"{", headers=JSON)).detail or "")
    assert "Content-Type" in (problem(await client.post("/echo/x", content=b"{}")).detail or "")
    busy = await client.post("/echo/busy", json={})
    assert (problem(busy).detail, busy.headers["retry-after"]) == ("later", "7")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b'{"\\ud800": "\\udfff"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 1900,
        b'{"a": NaN}',
        b'{"a": "\x00"}',
        b'\xef\xbb\xbf{"a": 1',
        b"",
        b"null",
    ],
)
async def test_a_body_that_nobody_foresaw_is_the_callers_mistake(client: httpx.AsyncClient, content: bytes) -> None:
    refused = problem(await client.post("/echo/x", content=content, headers=JSON))
    assert refused.status == (413 if len(content) > 2048 else 422)


async def test_of_many_mistakes_the_first_are_told(client: httpx.AsyncClient) -> None:
    body = {f"{index}" + "k" * 30: "x" for index in range(40)}
    told = problem(await client.post("/echo/x", json=body)).detail or ""
    assert told.endswith("and 30 more")
    assert len(told) < 4000
    long = problem(await client.post("/echo/x", json={"k" * 1500: "x"})).detail or ""
    assert len(long) <= 300


async def test_a_path_may_have_a_body_limit_of_its_own(metrics: Metrics) -> None:
    engine = Engine(EngineSettings(), metrics)
    app = base_app("t", "t", engine, metrics, max_body_bytes=2048, body_limits={"/large": 10_000})

    @app.post("/large")
    async def large(body: str) -> str:
        return body

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.post("/large", json="x" * 5_000)).status_code != 413
        assert (await client.post("/large", json="x" * 10_000)).status_code == 413
        assert (await client.post("/small", json="x" * 5_000)).status_code == 413


async def test_an_unforeseen_error_leaves_no_trace_outside(client: httpx.AsyncClient) -> None:
    reply = await client.post("/echo/bug", json={})
    assert problem(reply).status == 500
    assert "secret" not in reply.text


async def test_a_request_id_is_kept_if_it_is_one(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
    made = [(await client.get("/healthz", headers={"x-request-id": "a b\tc"})).headers["x-request-id"] for _ in "12"]
    assert len({*made, "a b\tc"}) == 3


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_limit_is_refused(client: httpx.AsyncClient, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    content = b" " * 10_000 if declared else chunks()
    refused = problem(await client.post("/echo/x", content=content, headers=JSON))
    assert refused.status == 413
    assert "2048 bytes" in (refused.detail or "")


async def test_health_and_readiness_differ(client: httpx.AsyncClient) -> None:
    assert Health.model_validate_json((await client.get("/healthz")).content) == Health(status="ok")
    unready = await client.get("/readyz")
    assert unready.status_code == 503
    assert Health.model_validate_json(unready.content).status == "starting"


async def test_readiness_follows_the_engine(
    open_engine: Callable[..., Awaitable[Engine]], faulty_server: type, metrics: Metrics
) -> None:
    engine = await open_engine(server := faulty_server(), retries=0)
    app = base_app("t", "t", engine, metrics, max_body_bytes=2048)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get("/readyz")).status_code == 200
        server.faults.append(httpx.ConnectError("refused"))
        deadline = asyncio.get_running_loop().time() + 5
        await engine.ask([Prompt("x")], Generation("completion", max_tokens=1), deadline=deadline, max_prompts=1)
        lost = await client.get("/readyz")
        assert (lost.status_code, lost.json()["status"]) == (503, "unavailable")
        assert "not to be reached" in lost.json()["detail"]


async def test_requests_are_counted_by_route_not_by_path(client: httpx.AsyncClient) -> None:
    for what in ("one", "two"):
        await client.post(f"/echo/{what}", json={})
    await client.get("/no/such/path")
    exposition = (await client.get("/metrics")).text
    assert 'preceptor_http_requests_total{code="200",route="/echo/{what}"} 2.0' in exposition
    assert 'preceptor_http_requests_total{code="404",route="other"} 1.0' in exposition
    assert "/no/such/path" not in exposition
