"""Servers for tests that run inside the test's own process, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response

from preceptor_services.serving import listen, serve

Answer = Callable[[str], str | httpx.Response]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The URL of `app`, on a loop and a thread of its own, for the length of the `with` block."""
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(app, listener, stop),))
    thread.start()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def scripted_teacher(answer: Answer) -> FastAPI:
    """A server of the OpenAI protocol that says `answer(prompt)`: what a healthy vLLM says is tested against vLLM."""
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "teacher", "root": "org/teacher"}]}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        body = await request.json()
        return {"tokens": [sum(map(ord, word)) for word in body["prompt"].split()]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        texts: list[str] = []
        for prompt in body["prompt"]:
            said = answer(prompt)
            if isinstance(said, httpx.Response):
                return Response(said.content, said.status_code)
            texts += [said] * body.get("n", 1)
        choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(len(p.split()) for p in body["prompt"]), "completion_tokens": len(texts)}
        return Response(httpx.Response(200, json={"choices": choices, "usage": usage}).content)

    return app


def judges_by_a_word(prompt: str) -> str:
    """Answers nano prompts by one rule: the word `good` is good, safe and true. Rewrites to it."""
    words = prompt.split()
    match words[0]:
        case "<quality>":
            first, second = prompt.split("<a>")[1].split("<b>")
            return {1: "A", 0: "tie", -1: "B"}[("good" in first) - ("good" in second)]
        case "<safety>":
            return "safe" if "good" in words else "unsafe"
        case "<factuality>":
            return "none" if "good" in words else "definite"
    return "good"


def wait_until_ready(url: str) -> None:
    """Returns once the service at `url` has had an answer from its teacher."""
    for _ in range(200):
        if httpx.get(f"{url}/readyz").status_code == 200:
            return
        threading.Event().wait(0.02)
    raise TimeoutError(httpx.get(f"{url}/readyz").text)
