from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from preceptor_client.contract import Constraint
from preceptor_services.engine import Engine, EngineError, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings
from scripted import Scripted

ONE_TOKEN = Generation("completion", max_tokens=1, labels=("safe", "unsafe"))
UNREACHABLE = httpx.ConnectError("refused")
OpenEngine = Callable[..., Awaitable[Engine]]


def soon(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def safety_prompts(*words: str) -> list[Prompt]:
    return [Prompt(f"<safety> {word} <answer>") for word in words]


async def test_answers_come_back_in_the_order_of_their_prompts(open_engine: OpenEngine, faulty_server: type) -> None:
    server = faulty_server(answer=lambda prompt: prompt.split()[1])
    engine = await open_engine(server)
    words = [f"w{i}" for i in range(10)]
    answers, usage = await engine.ask(
        safety_prompts(*words), replace(ONE_TOKEN, n=2, temperature=1.0), deadline=soon(), max_prompts=4
    )
    assert [answer.texts for answer in answers] == [(f" {word}", f" {word}") for word in words]
    assert sorted(len(body["prompt"]) for body in server.bodies) == [2, 4, 4]
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (10, 30, 20)


async def test_chat_takes_one_prompt_a_request(open_engine: OpenEngine, faulty_server: type) -> None:
    server = faulty_server()
    engine = await open_engine(server)
    prompts = [Prompt("<safety> good", system="be just"), Prompt("<safety> bad")]
    answers, _ = await engine.ask(prompts, replace(ONE_TOKEN, endpoint="chat"), deadline=soon(), max_prompts=64)
    assert [answer.texts for answer in answers] == [("safe",), ("unsafe",)]
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    "fault", [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.Response(429), httpx.Response(503)]
)
async def test_what_may_pass_is_tried_again(
    open_engine: OpenEngine, faulty_server: type, fault: httpx.Response | Exception
) -> None:
    server = faulty_server(faults=[fault])
    engine = await open_engine(server)
    answers, _ = await engine.ask(safety_prompts("good"), ONE_TOKEN, deadline=soon(), max_prompts=8)
    assert [answer.texts for answer in answers] == [(" safe",)]
    assert len(server.bodies) == 2


@pytest.mark.parametrize("fault", [httpx.Response(401), httpx.Response(404), httpx.ReadTimeout("slow")])
async def test_what_will_not_pass_is_not_tried_again(
    open_engine: OpenEngine, faulty_server: type, fault: httpx.Response | Exception
) -> None:
    server = faulty_server(faults=[fault])
    engine = await open_engine(server)
    answers, usage = await engine.ask(safety_prompts("good", "bad"), ONE_TOKEN, deadline=soon(), max_prompts=8)
    assert [answer.texts for answer in answers] == [(), ()]
    assert all(answer.error for answer in answers)
    assert len(server.bodies) == 1
    assert usage.calls == 2


async def test_an_engine_that_stays_away_is_lost_until_it_answers_again(
    open_engine: OpenEngine, faulty_server: type
) -> None:
    server = faulty_server(faults=[UNREACHABLE] * 2)
    engine = await open_engine(server, retries=1)
    answers, _ = await engine.ask(safety_prompts("good"), ONE_TOKEN, deadline=soon(), max_prompts=8)
    assert answers[0].error is not None
    assert not engine.ready
    watch = asyncio.create_task(engine.watch([ONE_TOKEN]))
    await asyncio.wait_for(engine.wait_ready(), 5)
    assert engine.trouble is None
    watch.cancel()


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"choices": [], "usage": {"prompt_tokens": 1}}),
        httpx.Response(200, json={"choices": [{"index": 0, "text": "safe"}]}),
    ],
)
async def test_a_reply_outside_the_protocol_is_an_error_not_an_answer(
    open_engine: OpenEngine, faulty_server: type, reply: httpx.Response
) -> None:
    engine = await open_engine(faulty_server(faults=[reply]), retries=0)
    answers, _ = await engine.ask(safety_prompts("good"), ONE_TOKEN, deadline=soon(), max_prompts=8)
    assert answers[0].texts == ()
    assert "/v1/completions" in (answers[0].error or "")


async def test_a_refused_prompt_does_not_take_its_neighbours_with_it(
    open_engine: OpenEngine, faulty_server: type
) -> None:
    server = faulty_server(refused_words=frozenset({"endless"}))
    engine = await open_engine(server)
    words = ["good"] * 5 + ["endless"] + ["bad"] * 5
    answers, usage = await engine.ask(safety_prompts(*words), ONE_TOKEN, deadline=soon(), max_prompts=64)
    assert [bool(answer.error) for answer in answers] == [word == "endless" for word in words]
    assert [answer.texts for answer in answers[:5]] == [(" safe",)] * 5
    assert usage.calls == 11


async def test_at_the_deadline_open_calls_are_errors(open_engine: OpenEngine, faulty_server: type) -> None:
    engine = await open_engine(server := faulty_server(), concurrency=1)
    server.hold = asyncio.Event()
    answers, usage = await engine.ask(safety_prompts("good", "bad"), ONE_TOKEN, deadline=soon(0.05), max_prompts=1)
    assert ["deadline" in (answer.error or "") for answer in answers] == [True, True]
    assert usage.calls == 1, "the second never left"
    server.hold.set()
    answers, _ = await engine.ask(safety_prompts("good"), ONE_TOKEN, deadline=soon(), max_prompts=1)
    assert answers[0].error is None, "the places are free again"


async def test_no_more_requests_than_allowed_are_in_flight(open_engine: OpenEngine, faulty_server: type) -> None:
    engine = await open_engine(server := faulty_server(), concurrency=3)
    server.hold = asyncio.Event()
    asking = asyncio.create_task(engine.ask(safety_prompts(*["good"] * 8), ONE_TOKEN, deadline=soon(), max_prompts=1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.bodies) == 3
    server.hold.set()
    answers, _ = await asking
    assert len(server.bodies) == 8
    assert not any(answer.error for answer in answers)


async def test_labels_of_one_token_each_are_the_only_tokens_allowed(
    open_engine: OpenEngine, faulty_server: type
) -> None:
    generation = replace(ONE_TOKEN, constraint="tokens")
    engine = await open_engine(server := faulty_server(), probes=(generation,))
    await engine.ask(safety_prompts("good"), generation, deadline=soon(), max_prompts=8)
    assert server.bodies[0]["allowed_token_ids"] == [sum(map(ord, "safe")), sum(map(ord, "unsafe"))]


async def test_a_label_of_several_tokens_cannot_bind_decoding(open_engine: OpenEngine, faulty_server: type) -> None:
    generation = replace(ONE_TOKEN, constraint="tokens", labels=("not safe", "safe"))
    engine = await open_engine(server := faulty_server(), probes=(generation,))
    await engine.ask(safety_prompts("good"), generation, deadline=soon(), max_prompts=8)
    assert "allowed_token_ids" not in server.bodies[0]


@pytest.mark.parametrize(
    "rubbish", [[], None, 7, {"tokens": None}, {"tokens": "safe"}, {"tokens": ["s"]}, {"ids": [1]}]
)
async def test_a_server_whose_tokens_make_no_sense_is_read_as_it_comes(
    open_engine: OpenEngine, faulty_server: type, rubbish: object
) -> None:
    generation, server = replace(ONE_TOKEN, constraint="tokens"), faulty_server()

    async def tokenizes_rubbish(request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = await server(request)
        return httpx.Response(200, content=json.dumps(rubbish)) if request.url.path == "/tokenize" else answer

    engine = await open_engine(tokenizes_rubbish, probes=(generation,))
    answers, _ = await engine.ask(safety_prompts("good"), generation, deadline=soon(), max_prompts=8)
    assert "allowed_token_ids" not in server.bodies[-1]
    assert [answer.texts for answer in answers] == [(" safe",)]


@pytest.mark.parametrize("reply", [b"", b"rubbish", b"[" * 100_000, b"[]", b"null", b'{"choices": 3, "usage": {}}'])
async def test_a_reply_outside_the_protocol_is_an_error_and_no_answer(
    open_engine: OpenEngine, faulty_server: type, reply: bytes
) -> None:
    engine = await open_engine(server := faulty_server(), probes=(ONE_TOKEN,), retries=0)
    server.faults = [httpx.Response(200, content=reply)]
    answers, _ = await engine.ask(safety_prompts("good"), ONE_TOKEN, deadline=soon(), max_prompts=8)
    assert answers[0].error
    assert answers[0].texts == ()


@pytest.mark.parametrize(("constraint", "key"), [("choice", "structured_outputs"), ("json", "response_format")])
async def test_a_constraint_is_used_unless_the_engine_refuses_it(
    open_engine: OpenEngine, faulty_server: type, constraint: Constraint, key: str
) -> None:
    generation = replace(ONE_TOKEN, constraint=constraint)
    for refused in (False, True):
        server = faulty_server(refused_keys=frozenset({key} if refused else ()))
        engine = await open_engine(server, probes=(generation,))
        answers, _ = await engine.ask(safety_prompts("good"), generation, deadline=soon(), max_prompts=8)
        assert (key in server.bodies[0]) is not refused
        assert [answer.texts for answer in answers] == [(" safe",)]


async def test_readiness_needs_an_answered_request_and_a_served_model(faulty_server: type, metrics: Metrics) -> None:
    server = faulty_server(faults=[httpx.Response(500, text="engine dead")])
    async with Engine(EngineSettings(), metrics, Scripted(server)) as engine:
        with pytest.raises(EngineError, match="engine dead"):
            await engine.prepare([ONE_TOKEN])
        assert not engine.ready
        with pytest.raises(EngineError, match="not ready"):
            _ = engine.served.teacher
        await engine.prepare([ONE_TOKEN])
        assert engine.ready
        assert (engine.served.teacher.name, engine.served.teacher.revision) == ("teacher", "unknown")
    async with Engine(EngineSettings(model="other"), metrics, Scripted(server)) as engine:
        with pytest.raises(EngineError, match=r"'other' is not served .* which has teacher"):
            await engine.prepare([ONE_TOKEN])


async def test_a_teacher_that_thinks_gets_room_for_it_and_is_read_from_behind_it(
    open_engine: OpenEngine, faulty_server: type
) -> None:
    generation = replace(ONE_TOKEN, endpoint="chat", max_tokens=64, constraint="json")
    server = faulty_server(answer=lambda _: "<think>is it safe?</think>safe")
    for reasoning, limits in (("parsed", (564, 500)), ("inline", (564, None))):
        engine = await open_engine(server, probes=(generation,), reasoning=reasoning, reasoning_tokens=500)
        answers, _ = await engine.ask(safety_prompts("good"), generation, deadline=soon(), max_prompts=8)
        assert (answers[0].texts, answers[0].reasoning) == (("safe",), ("is it safe?",))
        (body,) = server.bodies
        assert (body["max_tokens"], body.get("thinking_token_budget")) == limits
        assert ("response_format" in body) is (reasoning == "parsed")


async def test_a_probe_does_not_wait_for_a_thought(faulty_server: type, metrics: Metrics) -> None:
    server = faulty_server()
    async with Engine(EngineSettings(reasoning="parsed"), metrics, Scripted(server)) as engine:
        await engine.prepare([replace(ONE_TOKEN, endpoint="chat")])
        assert [(body["max_tokens"], body["thinking_token_budget"]) for body in server.bodies] == [(2, 1)]
