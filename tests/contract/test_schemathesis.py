"""The services against their OpenAPI documents: whatever is sent, the answer is one that the document promises.

With a teacher that answers, so that no 5xx is excused; the services ask for a key and keep batches.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from preceptor_client.contract import Problem
from preceptor_client.keys import add_key
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.settings import ServiceSettings
from served import judges_by_a_word, scripted_teacher, served, wait_until_ready

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "ignored_auth",
    "unsupported_method",
)
"""All that say something of the answer. That every body the schema allows is accepted is not promised: a JSON Schema
cannot tell that candidates' ids must differ."""


@dataclass(frozen=True)
class Service:
    """A service that is up, and a key to it."""

    url: str
    key: str
    route: str


@pytest.fixture(
    scope="module", params=[("/v1/judge", judge_app), ("/v1/rewrite", rewrite_app)], ids=["judge", "rewrite"]
)
def service(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    make_app: Callable[[ServiceSettings], FastAPI]
    route, make_app = request.param
    keys_file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    key = add_key(keys_file, "tester")
    with served(scripted_teacher(judges_by_a_word)) as teacher:
        settings = ServiceSettings.model_validate(
            {
                "engine": {"urls": [teacher]},
                "rubrics": ["nano"],
                "auth": {"keys_file": keys_file},
                "store": {"url": redis_url, "namespace": "schemathesis"},
                "queue": {"url": redis_url, "namespace": "schemathesis"},
            }
        )
        with served(make_app(settings)) as url:
            wait_until_ready(url)
            yield Service(url, key, route)


def test_every_answer_is_as_the_document_says(service: Service, tmp_path: Path) -> None:
    """Thousands of requests: examples, the schema's edges, and what hypothesis finds beyond them."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {service.key}", "--checks", ",".join(CHECKS)]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "7"]
    command += ["--exclude-path-regex", "/events$"]  # a stream: it ends when its batch does
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout
    tested = next(line for line in done.stdout.splitlines() if "generated" in line)
    assert int(tested.split()[0]) > 50, done.stdout


COHORT = '"cohort": {"id": "c", "prefix": "anna", "candidates": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}'
STRANGE = {
    "no UTF-8": b'{"prefix": "\xff", "suffix": "x"}',
    "UTF-16": '{"prefix": "a", "suffix": "x"}'.encode("utf-16"),
    "half a character": rb'{"prefix": "\ud800", "suffix": "\udfff \ud83d"}',
    "half a character in a name": rb'{"\ud800": 1}',
    "NaN": f'{{{COHORT}, "deadline_s": NaN}}'.encode(),
    "infinity": f'{{{COHORT}, "deadline_s": Infinity}}'.encode(),
    "a huge number": f'{{{COHORT}, "sampling": {{"seed": {"9" * 4000}}}}}'.encode(),
    "a number that no integer holds": f'{{{COHORT}, "sampling": {{"seed": {"9" * 5000}}}}}'.encode(),
    "a number beyond 64 bits": f'{{{COHORT}, "sampling": {{"seed": {2**64}}}}}'.encode(),
    "a number almost zero": f'{{{COHORT}, "deadline_s": 5e-324}}'.encode(),
    "depth": b'{"cohort": ' * 100_000,
    "depth that closes": b"[" * 50_000 + b"]" * 50_000,
    "null bytes": b'{"cohort": {"id": "c", "prefix": "\\u0000", "candidates": [{"id": "a", "text": "\\u0000\x7f"}]}}',
    "the same name twice": f'{{{COHORT}, {COHORT}, "axes": ["safety"], "axes": ["quality"]}}'.encode(),
    "two documents": b"{} {}",
    "nothing": b"",
    "a template that computes": f'{{{COHORT}, "axes": ["x"], "rubrics": {{"x": {{"axis": "x", "mode": "pointwise", '
    '"parser": "exact", "labels": {"y": 1, "n": 0}, "prompt": "{{ 9 ** 9 ** 9 }} {{ candidate }}"}}}'.encode(),
    "a template that does not parse": f'{{{COHORT}, "axes": ["x"], "rubrics": {{"x": {{"axis": "x", '
    '"mode": "pointwise", "parser": "exact", "labels": {"y": 1, "n": 0}, "prompt": "{% for"}}}'.encode(),
    "a rubric without labels": f'{{{COHORT}, "axes": ["x"], "rubrics": {{"x": {{"axis": "x", "mode": "ranking", '
    '"parser": "json", "constraint": "json", "prompt": "{{ candidates }}"}}}'.encode(),
    "an axis of many": f'{{{COHORT}, "axes": {["a" * 32] * 1000}}}'.replace("'", '"').encode(),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_nobody_foresaw_is_answered_in_the_contracts_words(service: Service, strange: str) -> None:
    headers = {"X-API-Key": service.key, "Content-Type": "application/json"}
    reply = httpx.post(service.url + service.route, content=STRANGE[strange], headers=headers, timeout=30)
    assert reply.status_code in (200, 422), reply.text
    if reply.status_code == 422:
        assert reply.headers["content-type"] == "application/problem+json"
        assert Problem.model_validate_json(reply.content).detail


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Idempotency-Key": "ü" * 200},
        {"Content-Type": "application/json", "Idempotency-Key": ""},
        {"Content-Type": "application/json", "X-Request-ID": "a" * 5000},
    ],
)
def test_strange_headers_are_answered_in_the_contracts_words(service: Service, headers: dict[str, str]) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in (*headers.items(), ("X-API-Key", service.key))]
    for body in (b"{}", f"{{{COHORT}}}".encode(), b'{"prefix": "a", "suffix": "b"}'):
        reply = httpx.post(service.url + service.route, content=body, headers=sent, timeout=30)
        assert reply.status_code in (200, 422), reply.text
