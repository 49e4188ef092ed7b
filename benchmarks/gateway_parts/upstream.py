"""An engine that costs as little as it can: the OpenAI protocol, answered at once or after a set time.

    python -m benchmarks.gateway_parts.upstream --port 9000 --latency-ms 50

In: requests for completions (any number of prompts) and chats. Out: for each prompt the first label that decoding is
bound to, one token long; what a label's token is, it learns when `/tokenize` is asked. `GET /count` says how many
prompts it has answered. Guarantees: no connection waits for another; nothing of a request is kept. It takes requests
as wrk, LiteLLM and the services send them: one at a time on a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, cast

import httptools
import uvloop

MODEL = "teacher"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


class Answers:
    """What is answered to what. Pure, but for the labels it has been told and the count."""

    def __init__(self) -> None:
        self._labels: dict[int, str] = {}
        self._count = 0

    def __call__(self, path: str, content: bytes) -> tuple[bytes, bool]:
        """The body of the reply, and whether it is a generation's."""
        match path:
            case "/v1/completions":
                return self._completions(json.loads(content)), True
            case "/v1/chat/completions":
                return self._chat(json.loads(content)), True
            case "/tokenize":
                label = json.loads(content)["prompt"]
                token = sum(map(ord, label))
                self._labels[token] = label
                return json.dumps({"tokens": [token]}).encode(), False
            case "/count":
                return json.dumps({"count": self._count}).encode(), False
            case _:
                return json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode(), False

    def _completions(self, body: dict[str, Any]) -> bytes:
        prompts = 1 if isinstance(body["prompt"], str) else len(body["prompt"])
        self._count += prompts
        tokens = body.get("allowed_token_ids")
        text = json.dumps(self._labels[tokens[0]] if tokens else "ready")
        choices = ",".join(
            f'{{"index":{index},"text":{text},"logprobs":null,"finish_reason":"length"}}'
            for index in range(prompts * body.get("n", 1))
        )
        return self._whole("text_completion", choices, prompts)

    def _chat(self, body: dict[str, Any]) -> bytes:
        self._count += 1
        text = json.dumps(_first(body["response_format"])) if "response_format" in body else "ready"
        message = f'{{"role":"assistant","content":{json.dumps(text)}}}'
        choices = f'{{"index":0,"message":{message},"logprobs":null,"finish_reason":"stop"}}'
        return self._whole("chat.completion", choices, 1)

    def _whole(self, kind: str, choices: str, prompts: int) -> bytes:
        usage = f'{{"prompt_tokens":{100 * prompts},"completion_tokens":{prompts},"total_tokens":{101 * prompts}}}'
        about = f'"id":"cmpl-{self._count}","object":"{kind}","created":1700000000,"model":"{MODEL}"'
        return f'{{{about},"choices":[{choices}],"usage":{usage}}}'.encode()


def _first(response_format: dict[str, Any]) -> dict[str, Any]:
    """The first verdict that a schema allows: a label, or for a ranking all of them in order."""
    properties = response_format["json_schema"]["schema"]["properties"]
    if "ranking" in properties:
        return {"reasoning": "", "ranking": properties["ranking"]["items"]["enum"]}
    return {"reasoning": "", "verdict": properties["verdict"]["enum"][0]}


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, latency_s: float) -> None:
        self._answers = answers
        self._latency_s = latency_s
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is of no class of asyncio

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._parts = url.decode(), []

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        body, generated = self._answers(self._path, b"".join(self._parts))
        reply = b"%b%d\r\n\r\n%b" % (_HEAD, len(body), body)
        if generated and self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, self._write, reply)
        else:
            self._transport.write(reply)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


async def _serve(port: int, latency_s: float) -> None:
    answers = Answers()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers, latency_s), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser("benchmarks.gateway_parts.upstream")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
