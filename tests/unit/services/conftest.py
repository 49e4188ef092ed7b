"""A server of the OpenAI protocol that fails on command: what a healthy vLLM does is tested against vLLM itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from preceptor_services.engine import Engine, Generation
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings
from scripted import Scripted


def by_rule(prompt: str) -> str:
    """Judges nano prompts by one rule: the word `good` is good, safe and true."""
    words = prompt.split()
    if words[0] == "<quality>":
        first, second = prompt.split("<a>")[1].split("<b>")
        better = ("good" in first) - ("good" in second)
        return {1: "A", 0: "tie", -1: "B"}[better]
    if words[0] == "<safety>":
        return "safe" if "good" in words else "unsafe"
    return "none" if "good" in words else "definite"


@dataclass
class FaultyServer:
    """Answers completions with `answer(prompt)`, after the `faults` are used up: a reply or an exception each."""

    answer: Callable[[str], str] = by_rule
    faults: list[httpx.Response | Exception] = field(default_factory=list)
    refused_words: frozenset[str] = frozenset()
    """A request with a prompt that holds one of these is refused as a whole, as vLLM does with one that is too long."""
    refused_keys: frozenset[str] = frozenset()
    hold: asyncio.Event | None = None
    """If set, completions wait for it."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Every completions body, in order of arrival."""

    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def arrived(self, count: int) -> None:
        """Returns once `count` completions requests have come."""
        async with self._arrival:
            await asyncio.wait_for(self._arrival.wait_for(lambda: len(self.bodies) >= count), 5)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "teacher", "root": "org/teacher"}]})
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": [sum(map(ord, word)) for word in body["prompt"].split()]})
        async with self._arrival:
            self.bodies.append(body)
            self._arrival.notify_all()
        if self.hold is not None:
            await self.hold.wait()
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        prompts = body["prompt"] if "prompt" in body else [body["messages"][-1]["content"]]
        if any(self.refused_words & set(prompt.split()) for prompt in prompts) or self.refused_keys & body.keys():
            return httpx.Response(400, json={"error": {"message": "refused"}})
        texts = [self.answer(prompt) for prompt in prompts for _ in range(body["n"])]
        if "messages" in body:
            choices = [{"index": index, "message": {"content": text}} for index, text in enumerate(texts)]
        else:
            choices = [{"index": index, "text": f" {text}"} for index, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(len(p.split()) for p in prompts), "completion_tokens": len(texts)}
        return httpx.Response(200, json={"choices": list(reversed(choices)), "usage": usage})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


OpenEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
async def open_engine(metrics: Metrics) -> AsyncIterator[OpenEngine]:
    """`await open_engine(server, probes=..., **settings)`: a ready engine on a FaultyServer."""
    async with AsyncExitStack() as stack:

        async def open_one(
            server: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]],
            probes: tuple[Generation, ...] = (),
            **settings: Any,
        ) -> Engine:
            transport = Scripted(server)
            engine = await stack.enter_async_context(Engine(EngineSettings(**settings), metrics, transport))
            await engine.prepare(probes)
            if isinstance(server, FaultyServer):
                server.bodies.clear()
            return engine

        yield open_one


@pytest.fixture
def faulty_server() -> type[FaultyServer]:
    return FaultyServer
