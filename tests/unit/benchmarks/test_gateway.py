"""The gateway benchmark: that both gateways are asked for the same, by a load that is what it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from benchmarks.gateway import added, compared, tables
from benchmarks.gateway_parts import requests
from benchmarks.gateway_parts.load import Measured
from benchmarks.gateway_parts.upstream import MODEL, Answers
from preceptor_client.contract import JudgeRequest, Status
from preceptor_services.engine import Engine
from preceptor_services.engine.connection import Reply
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings, JudgingSettings


class Upstream:
    """The benchmark's engine without its socket; keeps the bodies of chats and completions."""

    def __init__(self) -> None:
        self._answers = Answers()
        self.bodies: list[dict[str, Any]] = []

    async def exchange(self, method: str, url: str, content: bytes | None, patience_s: float) -> Reply:
        path = "/" + url.split("/", 3)[3]
        body, generated = self._answers(path, content or b"")
        if generated:
            self.bodies.append(json.loads(content or b""))
        return Reply(200, body)

    @property
    def count(self) -> int:
        return int(json.loads(self._answers("/count", b"")[0])["count"])

    async def aclose(self) -> None:
        """There is nothing to close."""


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def judge(upstream: Upstream) -> AsyncIterator[Judge]:
    metrics = Metrics()
    async with Engine(EngineSettings(model=MODEL), metrics, upstream) as engine:
        made = Judge(engine, load_rubrics("nano", "instruct"), JudgingSettings(), metrics)
        await engine.prepare(made.probes)
        upstream.bodies.clear()
        yield made


def request(body: bytes) -> JudgeRequest:
    return JudgeRequest.model_validate_json(body.replace(b"@", b"17"))


async def test_a_verdict_is_the_very_chat_that_litellm_is_asked_to_pass_on(judge: Judge, upstream: Upstream) -> None:
    response = await judge.judge(request(requests.verdict_request()))
    assert [verdict.status for verdict in response.verdicts] == [Status.OK]
    (sent,) = upstream.bodies
    given = json.loads(requests.chat_request().replace(b"@", b"17"))
    fences = [body["messages"][-1]["content"].split("]")[0].removeprefix("[begin ") for body in (sent, given)]
    assert json.dumps(sent).replace(fences[0], "") == json.dumps(given).replace(fences[1], "")


async def test_a_cohort_puts_as_many_questions_as_are_counted(judge: Judge, upstream: Upstream) -> None:
    before = upstream.count
    response = await judge.judge(request(requests.cohort_request()))
    assert {verdict.status for verdict in response.verdicts} == {Status.OK}
    assert upstream.count - before == response.usage.calls == 20


def test_what_is_added_and_how_we_compare() -> None:
    way, engine = Measured(100, 2.0, 5.0, 9.0), Measured(100, 2.0, 1.0, 2.0)
    half = added(way, engine)
    assert (half["requests_per_s"], half["added_p50_ms"], half["added_p99_ms"]) == (50, 4, 7)

    def saturated(rate: float) -> dict[str, float]:
        keys = ("questions_per_s", "p50_ms", "p99_ms", "processor_us_per_request")
        return {"requests_per_s": rate, "requests_per_processor_s": 2 * rate, **dict.fromkeys(keys, 1.0)}

    figures = {
        "saturated": {name: saturated(rate) for name, rate in (("preceptor", 500.0), ("litellm", 100.0))},
        "half": {"preceptor": half, "litellm": {**half, "p99_ms": 18.0}, "preceptor_at_litellms_rate": half},
    }
    assert compared(figures) == {
        "vs_litellm": 5,
        "vs_litellm_per_processor_s": 5,
        "p99_over_litellms": 0.5,
        "p99_over_litellms_at_its_rate": 0.5,
    }
    shown = tables({"engines": {"0": figures, "50": figures}})
    assert len(shown) == 4
    assert all(len(row) == len(table.columns) for table in shown for row in table.rows)
