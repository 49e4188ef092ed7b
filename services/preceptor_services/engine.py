"""The teacher as the services see it: an async client of any server that speaks the OpenAI protocol.

In: prompts and how to sample. Out: one `Answer` per prompt, in order, and what they cost. `ask` never raises for a
call that failed: the prompts it carried come back as answers with an `error`, so that one bad call cannot be mistaken
for a verdict or take its neighbours with it. Many completion prompts travel in one request; chat takes one prompt a
request.
Guarantees: at most `concurrency` requests in flight over the whole process; a request is repeated only where that can
help (no connection, 429, 5xx) and only until the deadline; a prompt that the server refuses is isolated from those
sent with it.
Waits for: a free place among the requests in flight, and the server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from preceptor_client.contract import Usage
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings
from preceptor_services.weights import weights_revision

log = logging.getLogger(__name__)

Endpoint = Literal["completion", "chat"]
Constraint = Literal["none", "tokens", "choice", "json"]
"""How decoding is bound to the labels. `tokens`: only the labels' tokens are allowed (each must be one token; costs
nothing measurable); `choice`: vLLM's structured outputs (about a tenth slower on one-token answers); `json`: a JSON
object with `reasoning`, then `verdict`, by the protocol's `response_format`."""

Kind = Literal["unreachable", "timeout", "overloaded", "broken", "rejected"]
_REPEATABLE: frozenset[Kind] = frozenset({"unreachable", "overloaded", "broken"})
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_CONNECT_S = 5.0


class EngineError(Exception):
    """The engine gave no usable answer; `kind` says why, and so whether repeating can help."""

    def __init__(self, kind: Kind, detail: str, *, pause_s: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.pause_s = pause_s
        """How long the server asked to be left alone."""
        self.status = status


@dataclass(frozen=True)
class Prompt:
    """One question: a text to complete, or a user's message with an optional system message."""

    text: str
    system: str | None = None


@dataclass(frozen=True)
class Generation:
    """How answers are drawn: `n` per prompt, at most `max_tokens` long, bound to `labels` by `constraint` where that
    is supported."""

    endpoint: Endpoint
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    labels: tuple[str, ...] = ()
    constraint: Constraint = "none"


@dataclass(frozen=True)
class Answer:
    """The `n` texts drawn for one prompt, or the error that left it without any."""

    texts: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Teacher:
    """Who answers: the model's name and its weights."""

    name: str
    revision: str


class Engine:
    """A connection pool to one engine. Use as `async with Engine(...) as engine`, with `watch` running beside."""

    def __init__(
        self, settings: EngineSettings, metrics: Metrics, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"} if settings.api_key else {}
        self._settings = settings
        self._metrics = metrics
        self._http = httpx.AsyncClient(
            base_url=settings.url.rstrip("/").removesuffix("/v1"),
            headers={**headers, "Content-Type": "application/json"},
            timeout=httpx.Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
            transport=transport,
        )
        self._places = asyncio.Semaphore(settings.concurrency)
        self._model = settings.model or ""
        self._teacher: Teacher | None = None
        self._label_tokens: dict[str, int] = {}
        self._unsupported: set[tuple[Endpoint, Constraint]] = set()
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self.trouble: str | None = "the engine has not answered yet"
        """Why the engine is not ready; None when it is."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def ready(self) -> bool:
        """Whether the engine has answered a real request, and has not been lost since."""
        return self._ready.is_set()

    @property
    def known(self) -> bool:
        """Whether the engine has ever been ready."""
        return self._teacher is not None

    @property
    def teacher(self) -> Teacher:
        """Who answers. Raises EngineError before the engine was ready for the first time."""
        if self._teacher is None:
            raise EngineError("unreachable", f"the engine at {self._settings.url} is not ready: {self.trouble}")
        return self._teacher

    async def wait_ready(self) -> None:
        """Returns when the engine is ready, at once if it is."""
        await self._ready.wait()

    async def watch(self, probes: Sequence[Generation]) -> None:
        """Keeps `ready` true to life, forever: asks until the engine answers, then waits until a call loses it."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.prepare(probes)
            except EngineError as error:
                if self.trouble != str(error):
                    log.warning("engine not ready: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                log.info(
                    "engine ready: %s answers as %s, revision %s",
                    self._settings.url,
                    self.teacher.name,
                    self.teacher.revision,
                )
                pause_s = _FIRST_PAUSE_S
                await self._lost.wait()

    async def prepare(self, probes: Sequence[Generation]) -> None:
        """Learn who answers, and put each kind of request in `probes` for real. Raises EngineError if one fails.

        A way of constraining that the engine refuses is given up for good: answers are then read as they come.
        """
        listed = await self._call("GET", "/v1/models", None)
        try:
            served: dict[str, str | None] = {model["id"]: model.get("root") for model in listed["data"]}
        except (KeyError, TypeError, AttributeError):
            raise EngineError(
                "broken", f"{self._settings.url}/v1/models does not answer as the protocol says"
            ) from None
        model = self._settings.model or next(iter(served), "")
        if model not in served:
            raise EngineError(
                "rejected",
                f"engine.model: {model!r} is not served at {self._settings.url}, "
                f"which has {', '.join(served) or 'nothing'}",
            )
        self._model = model
        for probe in dict.fromkeys(replace(probe, n=1, temperature=0.0, top_p=1.0, seed=None) for probe in probes):
            await self._probe(replace(probe, max_tokens=1))
        revision = self._settings.revision
        if revision is None:
            revision = await asyncio.to_thread(weights_revision, served[model])
        self._teacher = Teacher(model, revision)
        self.trouble = None
        self._lost.clear()
        self._ready.set()
        self._metrics.engine_ready.set(1)

    async def _probe(self, probe: Generation) -> None:
        if probe.constraint == "tokens":
            try:
                await self._find_label_tokens(probe.labels)
            except EngineError as error:
                if error.kind != "rejected":
                    raise
                log.warning("labels cannot bind decoding, answers are read as they come: %s", error)
        try:
            await self._request([Prompt("ready")], probe)
        except EngineError as error:
            if error.kind != "rejected" or self._constraint(probe) == "none":
                raise
            self._give_up(probe, error)
            await self._request([Prompt("ready")], probe)

    async def _find_label_tokens(self, labels: Sequence[str]) -> None:
        """Ask the server for the labels' token ids. Raises EngineError (`rejected`) if a label is not one token."""
        for label in labels:
            body = {"model": self._model, "prompt": label, "add_special_tokens": False}
            tokens = (await self._call("POST", "/tokenize", body)).get("tokens", [])
            if len(tokens) != 1:
                raise EngineError("rejected", f"the label {label!r} is {len(tokens)} tokens, not one")
            self._label_tokens[label] = tokens[0]

    def _give_up(self, probe: Generation, error: EngineError) -> None:
        log.warning(
            "constraint %r is not to be had of this engine, answers are read as they come: %s", probe.constraint, error
        )
        self._unsupported.add((probe.endpoint, probe.constraint))

    def _constraint(self, generation: Generation) -> Constraint:
        if (generation.endpoint, generation.constraint) in self._unsupported:
            return "none"
        return generation.constraint

    async def ask(
        self, prompts: Sequence[Prompt], generation: Generation, *, deadline: float, max_prompts: int
    ) -> tuple[list[Answer], Usage]:
        """An answer for every prompt, in order. Completion prompts travel `max_prompts` to a request.

        `deadline` is in the event loop's time: what is open then comes back with an error.
        """
        size = max_prompts if generation.endpoint == "completion" else 1
        chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        parts = await asyncio.gather(*(self._ask_chunk(chunk, generation, deadline) for chunk in chunks))
        answers = [answer for part, _ in parts for answer in part]
        return answers, sum((usage for _, usage in parts), Usage())

    async def _ask_chunk(
        self, prompts: Sequence[Prompt], generation: Generation, deadline: float
    ) -> tuple[list[Answer], Usage]:
        cost = Usage()
        try:
            async with asyncio.timeout_at(deadline), self._places:
                cost = Usage(calls=len(prompts))
                answers, cost = await self._repeat(prompts, generation)
        except TimeoutError:
            error = EngineError("timeout", "the deadline passed before the engine answered")
        except EngineError as failure:
            if failure.status in (400, 413, 422) and len(prompts) > 1:
                return await self._ask_halves(prompts, generation, deadline)
            error = failure
        else:
            self._metrics.count_usage(cost)
            return answers, cost
        self._metrics.engine_failures.labels(error.kind).inc()
        self._metrics.count_usage(cost)
        return [Answer(error=str(error))] * len(prompts), cost

    async def _ask_halves(
        self, prompts: Sequence[Prompt], generation: Generation, deadline: float
    ) -> tuple[list[Answer], Usage]:
        """After a refusal that one prompt may have caused (too long, say): the others must not suffer for it."""
        middle = len(prompts) // 2
        left, right = await asyncio.gather(
            self._ask_chunk(prompts[:middle], generation, deadline),
            self._ask_chunk(prompts[middle:], generation, deadline),
        )
        return left[0] + right[0], left[1] + right[1]

    async def _repeat(self, prompts: Sequence[Prompt], generation: Generation) -> tuple[list[Answer], Usage]:
        """One request, repeated where that can help."""
        pause_s = _FIRST_PAUSE_S
        for attempt in range(self._settings.retries + 1):
            try:
                return await self._request(prompts, generation)
            except EngineError as error:
                if error.kind not in _REPEATABLE or attempt == self._settings.retries:
                    if error.kind == "unreachable":
                        self._lose(error)
                    raise
                self._metrics.engine_retries.inc()
                await asyncio.sleep(error.pause_s or pause_s * random.uniform(0.5, 1.0))
                pause_s *= 2
        raise AssertionError("retries is never negative")

    def _lose(self, error: EngineError) -> None:
        self.trouble = str(error)
        self._ready.clear()
        self._lost.set()
        self._metrics.engine_ready.set(0)

    async def _request(self, prompts: Sequence[Prompt], generation: Generation) -> tuple[list[Answer], Usage]:
        path = "/v1/completions" if generation.endpoint == "completion" else "/v1/chat/completions"
        reply = await self._call("POST", path, self._body(prompts, generation))
        try:
            usage = reply["usage"]
            texts = _texts(reply["choices"], generation.endpoint, len(prompts), generation.n)
            cost = Usage(
                calls=len(prompts),
                prompt_tokens=usage["prompt_tokens"],
                completion_tokens=usage.get("completion_tokens") or 0,
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise EngineError("broken", f"{path} does not answer as the protocol says: {error!r}") from None
        return [Answer(texts=own) for own in texts], cost

    def _body(self, prompts: Sequence[Prompt], generation: Generation) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": generation.max_tokens,
            "n": generation.n,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
        }
        if generation.seed is not None:
            body["seed"] = generation.seed
        if generation.endpoint == "completion":
            body["prompt"] = [prompt.text for prompt in prompts]
        else:
            (prompt,) = prompts
            system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
            body["messages"] = [*system, {"role": "user", "content": prompt.text}]
        match self._constraint(generation):
            case "tokens" if self._label_tokens.keys() >= set(generation.labels):
                body["allowed_token_ids"] = [self._label_tokens[label] for label in generation.labels]
            case "choice":
                body["structured_outputs"] = {"choice": list(generation.labels)}
            case "json":
                body["response_format"] = _verdict_schema(generation.labels)
        return body

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """One HTTP exchange. Raises EngineError."""
        started = time.monotonic()
        self._metrics.engine_calls.inc()
        try:
            reply = await self._http.request(method, path, content=None if body is None else json.dumps(body).encode())
        except httpx.ConnectTimeout:
            raise EngineError("unreachable", f"no connection to the engine at {self._settings.url}") from None
        except httpx.TimeoutException:
            raise EngineError(
                "timeout", f"no answer from {path} within engine.timeout_s={self._settings.timeout_s:g}"
            ) from None
        except httpx.TransportError as error:
            raise EngineError(
                "unreachable", f"the engine at {self._settings.url} is not to be reached: {error!r}"
            ) from None
        finally:
            self._metrics.engine_seconds.observe(time.monotonic() - started)
        if reply.status_code != 200:
            raise _failure(reply, path)
        try:
            return json.loads(reply.content)
        except ValueError:
            raise EngineError("broken", f"{path} answered with something else than JSON") from None


def _texts(choices: list[dict[str, Any]], endpoint: Endpoint, prompts: int, n: int) -> list[tuple[str, ...]]:
    """The texts by prompt. Choices are numbered prompt by prompt, `n` each, and may come in any order."""
    if sorted(choice["index"] for choice in choices) != list(range(prompts * n)):
        raise ValueError(f"{len(choices)} choices for {prompts} prompts, {n} each")
    texts = [""] * len(choices)
    for choice in choices:
        text = choice["text"] if endpoint == "completion" else choice["message"]["content"]
        texts[choice["index"]] = text or ""
    return [tuple(texts[start : start + n]) for start in range(0, len(texts), n)]


def _verdict_schema(labels: Sequence[str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "verdict": {"type": "string", "enum": list(labels)}},
        "required": ["reasoning", "verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def _failure(reply: httpx.Response, path: str) -> EngineError:
    detail = f"{path} answered {reply.status_code}: {reply.text[:300]}"
    status = reply.status_code
    if status == 429 or status == 503:
        try:
            pause_s = min(float(reply.headers.get("Retry-After", "")), _LONGEST_PAUSE_S)
        except ValueError:
            pause_s = None
        return EngineError("overloaded", detail, pause_s=pause_s, status=status)
    return EngineError("broken" if status >= 500 else "rejected", detail, status=status)
