"""The services' OpenAPI documents: what they promise is what the contract holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from preceptor_client.contract import JudgeRequest, RewriteRequest
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.settings import ServiceSettings

Service = tuple[str, type[BaseModel], Callable[[ServiceSettings], FastAPI]]
JUDGE: Service = ("/v1/judge", JudgeRequest, judge_app)
REWRITE: Service = ("/v1/rewrite", RewriteRequest, rewrite_app)


@pytest.fixture(params=[JUDGE, REWRITE], ids=["judge", "rewrite"])
def documented(request: pytest.FixtureRequest) -> tuple[str, type[BaseModel], FastAPI]:
    path, model, make_app = request.param
    return path, model, make_app(ServiceSettings())


def test_every_example_is_a_valid_request(documented: tuple[str, type[BaseModel], FastAPI]) -> None:
    path, model, app = documented
    examples = app.openapi()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples
    for example in examples.values():
        model.model_validate(example["value"])


def test_answers_and_errors_are_described(documented: tuple[str, type[BaseModel], FastAPI]) -> None:
    path, _, app = documented
    responses: dict[str, Any] = app.openapi()["paths"][path]["post"]["responses"]
    assert set(responses) == {"200", "413", "422", "503"}
    assert all("application/problem+json" in responses[status]["content"] for status in ("413", "422", "503"))


def test_operations_are_documented(documented: tuple[str, type[BaseModel], FastAPI]) -> None:
    assert {"/healthz", "/readyz", "/metrics"} <= documented[2].openapi()["paths"].keys()
