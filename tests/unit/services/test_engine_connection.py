"""The engine's connections over real sockets: what a server does to them, and what is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from preceptor_client.stack import claim_port
from preceptor_services.engine import EngineError
from preceptor_services.engine.connection import Connection
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings

Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def whole_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    return head + await reader.readexactly(sum(lengths))


@asynccontextmanager
async def connected(
    serve: Serve, metrics: Metrics, **settings: object
) -> AsyncIterator[tuple[Connection, list[bytes]]]:
    """A connection to a server that meets each request with `serve`, and all that it was sent; an empty entry begins a
    connection."""
    seen: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"")
        try:
            while not writer.is_closing():
                seen.append(await whole_request(reader))
                await serve(seen[-1], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connection = Connection(url, EngineSettings(**settings), metrics, None)
    try:
        yield connection, seen
    finally:
        await connection.aclose()
        server.close()


def replying(status: str, body: bytes = b"{}", *headers: str) -> Serve:
    async def serve(_: bytes, writer: asyncio.StreamWriter) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
        writer.write(head.encode() + b"\r\n\r\n" + body)

    return serve


async def failure(connection: Connection, **more: float) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await connection.call("POST", "/v1/completions", {"prompt": "a"}, **more)
    return caught.value


async def test_what_is_said_and_what_comes_back(metrics: Metrics) -> None:
    serve = replying("200 OK", b'{"one": 1}')
    async with connected(serve, metrics, api_key=SecretStr("secret")) as (connection, seen):
        assert connection.url.endswith(connection.name)
        for _ in range(3):
            assert await connection.call("POST", "/v1/completions", {"prompt": "\ud800"}) == {"one": 1}
    opened, first, *others = seen
    assert opened == b""
    assert others == [first, first], "one connection carries them all"
    assert first.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in first
    assert b"Content-Type: application/json\r\n" in first
    assert first.endswith(b'{"prompt": "\\ud800"}')


async def test_nobody_listens(metrics: Metrics) -> None:
    connection = Connection(f"http://127.0.0.1:{claim_port()}", EngineSettings(), metrics, None)
    error = await failure(connection)
    await connection.aclose()
    assert error.kind == "unreachable"
    assert connection.url in str(error)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"what?\r\n\r\n"])
async def test_a_server_that_hangs_up_or_talks_gibberish(metrics: Metrics, begun: bytes) -> None:
    async def serve(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await writer.drain()
        writer.close()

    async with connected(serve, metrics) as (connection, _):
        assert (await failure(connection)).kind == "unreachable"


async def test_a_server_that_takes_too_long(metrics: Metrics) -> None:
    async def serve(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with connected(serve, metrics) as (connection, _):
        error = await failure(connection, patience_s=0.05)
    assert (error.kind, "within 0.05 s" in str(error)) == ("timeout", True)


@pytest.mark.parametrize(
    ("status", "kind", "pause_s"),
    [
        ("400 Bad", "rejected", None),
        ("307 Go", "rejected", None),
        ("500 Dead", "broken", None),
        ("429 Wait", "overloaded", 1.5),
    ],
)
async def test_other_statuses_than_200_are_told_apart(
    metrics: Metrics, status: str, kind: str, pause_s: float | None
) -> None:
    headers = ("Location: /elsewhere", "Retry-After: 1.5")
    async with connected(replying(status, b"why", *headers), metrics) as (connection, seen):
        error = await failure(connection)
    assert (error.kind, error.pause_s) == (kind, pause_s)
    assert str(error).endswith(f"answered {status[:3]}: why")
    assert len(seen) == 2, "no redirection is followed"


async def test_what_is_not_json(metrics: Metrics) -> None:
    async with connected(replying("200 OK", b"<html>"), metrics) as (connection, _):
        assert (await failure(connection)).kind == "broken"


async def test_the_proxy_of_the_environment_is_used(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(replying("200 OK"), metrics) as (proxy, seen):
        for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        connection = Connection("http://engine.invalid:8000", EngineSettings(), metrics, None)
        assert await connection.call("GET", "/v1/models") == {}
        await connection.aclose()
    assert seen[1].startswith(b"GET http://engine.invalid:8000/v1/models HTTP/1.1\r\n")
