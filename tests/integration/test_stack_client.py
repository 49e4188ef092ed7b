"""Both clients over real connections, against a server that misbehaves as a script tells it to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest

from preceptor_client import AsyncPreceptorClient, ClientSettings, JudgeResponse, PreceptorClient, RewriteRequest
from preceptor_client.calls import judge_texts_request
from preceptor_client.errors import InvalidRequestError, ServiceError, ServiceUnreachableError

REQUEST = judge_texts_request("the sky is", ["blue", "loud"])
GOOD = JudgeResponse(cohort_id=REQUEST.cohort.id, verdicts=(), axes={}, elapsed_s=0.1)
Step = int | Literal["hang up", "stall"]


@dataclass
class ScriptedServer:
    """Answers each POST with the next step of the script (a status, or a misdeed), and the last step from then on."""

    script: list[Step]
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def next_step(self) -> Step:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer([200])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, b'{"status":"ok"}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            scripted.headers.append(dict(self.headers))
            step = scripted.next_step()
            if step == "hang up":
                self.close_connection = True
            elif step == "stall":
                scripted.released.wait(30)
                self.close_connection = True
            else:
                self.answer(
                    step, GOOD.model_dump_json().encode() if step == 200 else b'{"title":"no","status":%d}' % step
                )

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        scripted.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield scripted
        scripted.released.set()
        http.shutdown()
        thread.join()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def judge(kind: str, url: str, **changes: Any) -> JudgeResponse:
    settings = ClientSettings(judge_url=url, backoff_s=0.01, **changes)
    if kind == "sync":
        with PreceptorClient(settings=settings) as client:
            return client.judge(REQUEST)
    async with AsyncPreceptorClient(settings=settings) as client:
        return await client.judge(REQUEST)


async def test_a_call_survives_what_passes_by_itself(kind: str, server: ScriptedServer) -> None:
    server.script = [503, "hang up", 502, 200]
    assert await judge(kind, server.url) == GOOD
    assert len(server.headers) == 4
    for name in ("Idempotency-Key", "X-Request-Id"):
        assert len({headers[name] for headers in server.headers}) == 1, "attempts of one call share it"


async def test_a_call_gives_up_after_its_retries_with_the_last_error(kind: str, server: ScriptedServer) -> None:
    server.script = [503]
    with pytest.raises(ServiceError, match="503"):
        await judge(kind, server.url, retries=2)
    assert len(server.headers) == 3


async def test_a_wrong_request_is_sent_once(kind: str, server: ScriptedServer) -> None:
    server.script = [422, 200]
    with pytest.raises(InvalidRequestError):
        await judge(kind, server.url)
    assert len(server.headers) == 1


async def test_a_stalled_answer_ends_with_the_read_time_out(kind: str, server: ScriptedServer) -> None:
    server.script = ["stall"]
    with pytest.raises(ServiceUnreachableError, match="no answer in time"):
        await judge(kind, server.url, read_timeout_s=0.2)
    assert len(server.headers) == 1


async def test_a_closed_port_is_a_typed_error(kind: str) -> None:
    with pytest.raises(ServiceUnreachableError, match="cannot be reached"):
        await judge(kind, "http://127.0.0.1:9", retries=1)


async def test_readiness_needs_every_service_asked_about(server: ScriptedServer) -> None:
    with PreceptorClient(server.url, server.url, settings=ClientSettings(connect_timeout_s=1)) as client:
        assert client.ready()
    with PreceptorClient(server.url, "http://127.0.0.1:9") as client:
        assert client.ready("judge")
        assert not client.ready()
        assert client.health("rewrite").status == "unavailable"
    async with AsyncPreceptorClient(server.url, "http://127.0.0.1:9") as patient:
        assert await patient.ready("judge")
        assert not await patient.ready()


async def test_plain_texts_and_rewrites_take_the_same_way(server: ScriptedServer) -> None:
    with PreceptorClient(server.url, server.url, api_key="k") as client:
        assert client.judge_texts("the sky is", ["blue", "loud"]) == GOOD
    async with AsyncPreceptorClient(server.url, server.url, api_key="k") as client:
        assert await client.judge_texts("the sky is", ["blue", "loud"]) == GOOD
    assert all(headers["Authorization"] == "Bearer k" for headers in server.headers)
    server.script = [404]
    with PreceptorClient(server.url, server.url) as client, pytest.raises(InvalidRequestError):
        client.rewrite(RewriteRequest(prefix="a", suffix="b"))
