"""The probe of a vLLM server: only an answer to a real request is one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from scripts.manifests.render import KUBERNETES

PROBE = KUBERNETES / "base" / "services" / "answers.py"


@contextmanager
def a_server(status: int, answer: bytes) -> Iterator[tuple[int, list[Any]]]:
    """Healthy, whatever it answers to a completion; what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def probe(port: int) -> subprocess.CompletedProcess[str]:
    environment = {"SERVED_MODEL": "policy", "PORT": str(port)}
    return subprocess.run([sys.executable, "-I", PROBE], env=environment, capture_output=True, text=True, check=False)


def test_a_real_answer_is_one() -> None:
    with a_server(200, b'{"choices": [{"text": " b"}]}') as (port, asked):
        assert probe(port).returncode == 0
    assert asked == [("/v1/completions", {"model": "policy", "prompt": "a", "max_tokens": 1})]


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (500, b"engine is dead", "HTTP Error 500"),
        (200, b"not JSON", "no answer yet"),
        (200, b'{"choices": []}', "without a choice"),
        (200, b'{"error": "x"}', "no answer yet"),
    ],
)
def test_anything_else_is_none(status: int, answer: bytes, reason: str) -> None:
    with a_server(status, answer) as (port, _):
        result = probe(port)
    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_nobody_there_is_none() -> None:
    result = probe(9)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
