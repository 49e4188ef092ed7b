"""Readiness probes and ports: small questions to a part that is starting. Standard library and httpx only.

A probe is called with nothing and answers None when the part is ready, else a few words on why it is not yet.
It waits for one answer at most, and never raises for a part that is not up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

LOOPBACK = "127.0.0.1"

Probe = Callable[[], str | None]


class PortTaken(RuntimeError):
    """Another process listens on the port that was asked for."""


def claim_port(port: int | None = None) -> int:
    """`port` if it is free on loopback, or any free port if None or 0. Raises `PortTaken`."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port or 0))
        except OSError as error:
            raise PortTaken(
                f"port {port} on {LOOPBACK} cannot be used ({error.strerror}): choose another, or 0 for any free one"
            ) from None
        claimed: int = candidate.getsockname()[1]
        return claimed


def http_probe(url: str) -> Probe:
    """Ready when a GET of `url` answers 2xx."""

    def probe() -> str | None:
        return _outcome(lambda: httpx.get(url, timeout=5, trust_env=False))

    return probe


def completion_probe(url: str, model: str) -> Probe:
    """Ready when the OpenAI-protocol server at `url` is healthy and has answered one real one-token completion.

    Health alone is not enough: vLLM can report it and lose its engine at the first request.
    """

    def probe() -> str | None:
        unhealthy = _outcome(lambda: httpx.get(f"{url}/health", timeout=5, trust_env=False))
        if unhealthy:
            return unhealthy
        body = {"model": model, "prompt": "a", "max_tokens": 1}
        return _outcome(lambda: httpx.post(f"{url}/v1/completions", json=body, timeout=60, trust_env=False))

    return probe


def redis_probe(url: str) -> Probe:
    """Ready when the server answers PING, as it does once its data is loaded, or asks for a password."""
    target = urlsplit(url)

    def probe() -> str | None:
        try:
            with socket.create_connection((target.hostname or LOOPBACK, target.port or 6379), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            return error.strerror or type(error).__name__
        return None if answer.startswith((b"+PONG", b"-NOAUTH")) else f"answered {answer!r}"

    return probe


def _outcome(send: Callable[[], httpx.Response]) -> str | None:
    try:
        response = send()
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    return None if response.is_success else f"{response.url} answered {response.status_code}: {response.text[:200]}"
