from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from pydantic import JsonValue
from starlette.types import Message, Receive, Scope, Send

from preceptor_client.contract import Problem, Usage
from preceptor_client.keys import add_key
from preceptor_services.auth import Access, Door, spend
from preceptor_services.engine import Engine
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings, ServiceSettings
from preceptor_services.web import PROBLEM_TYPE, base_app

Open = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
async def open_app(metrics: Metrics) -> AsyncIterator[Open]:
    """`await open_app(**sections)`: a client of an app with a route that costs `tokens` and one that says who calls."""
    async with AsyncExitStack() as stack:

        async def open_one(**sections: Any) -> httpx.AsyncClient:
            access = Access(ServiceSettings.model_validate(sections), metrics)
            engine = await stack.enter_async_context(Engine(EngineSettings(), metrics))
            app = base_app("t", "t", engine, metrics, max_body_bytes=2048, middleware=[access.middleware])
            access.describe(app)

            @app.post("/v1/work")
            async def work(request: Request, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
                spend(request, Usage(prompt_tokens=int(str(body["tokens"]))))
                return {"caller": request.state.caller.name, "priority": request.state.caller.priority.name}

            @app.get("/v1/whoami")
            async def whoami(request: Request) -> str:
                return str(request.state.caller.name)

            app.state.access = access
            stack.push_async_callback(access.aclose)
            transport = httpx.ASGITransport(app)
            client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://t"))
            client.app = app  # type: ignore[attr-defined]
            return client

        yield open_one


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def problem(reply: httpx.Response, status: int) -> str:
    assert (reply.status_code, reply.headers["content-type"]) == (status, PROBLEM_TYPE)
    found = Problem.model_validate_json(reply.content)
    assert found.request_id == reply.headers["x-request-id"]
    return found.detail or ""


async def test_without_a_keys_file_everybody_is_anonymous(open_app: Open) -> None:
    client = await open_app()
    done = await client.post("/v1/work", json={"tokens": 10**6}, headers=bearer("whatever"))
    assert done.json() == {"caller": "anonymous", "priority": "INTERACTIVE"}
    assert "securitySchemes" not in (await client.get("/openapi.json")).json().get("components", {})


async def test_a_key_opens_every_route_and_names_its_caller(open_app: Open, file: Path) -> None:
    key = add_key(file, "alice", priority="training")
    client = await open_app(auth={"keys_file": file})
    for headers in (bearer(key), {"authorization": f"bearer  {key} "}, {"X-API-Key": key}):
        done = await client.post("/v1/work", json={"tokens": 1}, headers=headers)
        assert done.json() == {"caller": "alice", "priority": "TRAINING"}
    assert (await client.get("/v1/whoami", headers=bearer(key))).json() == "alice"
    assert 'preceptor_caller_tokens_total{caller="alice"} 3.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/work",
        "/v1/whoami",
        "/v1/nothing",
        "/x",
        "/healthz/",
        "/%2Fhealthz",
        "/docs/x",
        "/dashboard/x/y",
        "/v1/runs/x/cohorts",
        "/v1/runs/x/rows/",
    ],
)
async def test_without_a_key_nothing_is_open_that_is_not_named(open_app: Open, file: Path, path: str) -> None:
    key = add_key(file, "alice")
    client = await open_app(auth={"keys_file": file})
    wrong: tuple[dict[str, str], ...] = (
        {},
        bearer("pcp_wrong"),
        bearer(""),
        {"Authorization": f"Basic {key}"},
        {"X-API-Key": key + "x"},
    )
    for headers in wrong:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
            refused = await client.request(method, path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith('Bearer realm="preceptor"')
    assert "needs an API key" in problem(await client.get(path), 401)
    assert "not known" in problem(await client.get(path, headers=bearer("pcp_wrong")), 401)


async def test_a_body_is_not_read_without_a_key(open_app: Open, file: Path) -> None:
    add_key(file, "alice")
    client = await open_app(auth={"keys_file": file})

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    problem(await client.post("/v1/work", content=body()), 401)


@pytest.mark.parametrize("guarded", [False, True])
async def test_operations_are_open_and_metrics_as_the_settings_say(open_app: Open, file: Path, guarded: bool) -> None:
    key = add_key(file, "alice")
    client = await open_app(auth={"keys_file": file, "metrics": guarded})
    for path, status in {"/healthz": 200, "/readyz": 503, "/docs": 200, "/openapi.json": 200}.items():
        assert (await client.get(path)).status_code == status
    assert (await client.get("/metrics")).status_code == (401 if guarded else 200)
    assert (await client.get("/metrics", headers=bearer(key))).status_code == 200


async def test_the_document_names_the_schemes_and_the_refusals(open_app: Open, file: Path) -> None:
    add_key(file, "alice")
    client = await open_app(auth={"keys_file": file})
    document = (await client.get("/openapi.json")).json()
    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    work, healthz = document["paths"]["/v1/work"]["post"], document["paths"]["/healthz"]["get"]
    assert {"401", "429"} <= work["responses"].keys()
    assert work["security"]
    assert "security" not in healthz


async def test_too_many_requests_are_told_when_to_come_back(open_app: Open, file: Path) -> None:
    alice, bob = add_key(file, "alice", requests_per_minute=2), add_key(file, "bob")
    client = await open_app(auth={"keys_file": file})
    for _ in range(2):
        assert (await client.get("/v1/whoami", headers=bearer(alice))).status_code == 200
    refused = await client.post("/v1/work", json={"tokens": 1}, headers=bearer(alice))
    wait_s = int(refused.headers["retry-after"])
    assert 20 <= wait_s <= 30
    assert f"2 requests a minute: come back in {wait_s} s" in problem(refused, 429)
    assert (await client.post("/v1/work", json={"tokens": 1}, headers=bearer(bob))).status_code == 200
    assert 'preceptor_refusals_total{reason="requests"} 1.0' in (await client.get("/metrics")).text


async def test_tokens_that_were_spent_are_paid_back_before_there_is_more_work(open_app: Open, file: Path) -> None:
    key = add_key(file, "alice", tokens_per_minute=100)
    client = await open_app(auth={"keys_file": file})
    assert (await client.post("/v1/work", json={"tokens": 200}, headers=bearer(key))).status_code == 200
    refused = await client.post("/v1/work", json={"tokens": 1}, headers=bearer(key))
    assert "100 tokens a minute" in problem(refused, 429)
    assert 50 <= int(refused.headers["retry-after"]) <= 61
    assert (await client.get("/v1/whoami", headers=bearer(key))).status_code == 200


async def test_a_full_service_says_so_to_everybody(open_app: Open) -> None:
    client = await open_app(web={"max_waiting": 1})
    access: Access = client.app.state.access
    async with access.limits.place(access.caller({})):
        refused = await client.post("/v1/work", json={"tokens": 1})
        assert "come back in 1 s" in problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/v1/whoami")).status_code == 200
    assert (await client.post("/v1/work", json={"tokens": 1})).status_code == 200


async def test_work_that_fails_gives_its_place_back(open_app: Open, file: Path) -> None:
    key = add_key(file, "alice", concurrency=1)
    client = await open_app(auth={"keys_file": file})
    for _ in range(3):
        assert (await client.post("/v1/work", json={"tokens": "many"}, headers=bearer(key))).status_code == 500
        assert (await client.post("/v1/work", json=[], headers=bearer(key))).status_code == 422


async def test_work_is_charged_once_and_before_its_answer_is_out(metrics: Metrics, file: Path) -> None:
    headers = [(b"authorization", bearer(add_key(file, "alice"))["Authorization"].encode())]
    access = Access(ServiceSettings.model_validate({"auth": {"keys_file": file}}), metrics)
    sent: list[tuple[str, bool]] = []

    def is_charged() -> bool:
        return b'preceptor_caller_tokens_total{caller="alice"} 7.0' in metrics.exposition()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["tokens"] += 7
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await send({"type": "http.response.body", "body": b"half"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append((message["type"], is_charged()))

    request = {"type": "http", "method": "POST", "path": "/v1/work", "headers": headers}
    await Door(answer, access)(request, receive, send)
    assert sent == [("http.response.start", False), ("http.response.body", False), ("http.response.body", True)]
    assert is_charged()
    await access.aclose()
