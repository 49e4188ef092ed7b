"""What the HTTP sides of all services share: request ids, problem+json, access log, health, metrics. Knows no judging.

In: an engine to watch and settings. Out: a FastAPI app with `/healthz`, `/readyz` and `/metrics`, to which a service
adds its routes.
Guarantees: every answer carries `X-Request-ID`, and so does every line logged on its way; every error is
`application/problem+json` and says what to change; a body above the limit is refused before it is read to its end; no
traceback leaves the process.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preceptor_client.config import in_words
from preceptor_client.contract import Health, Problem
from preceptor_services import logs, traces
from preceptor_services.metrics import Metrics

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})
_MOST_PROBLEMS = 10
_LONGEST_PROBLEM = 300
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Readiness(Protocol):
    """What `/readyz` is about."""

    @property
    def ready(self) -> bool:
        """Whether it can be worked with."""

    @property
    def known(self) -> bool:
        """Whether it has ever been ready."""

    @property
    def trouble(self) -> str | None:
        """Why it is not ready."""


class ProblemError(Exception):
    """An error to be answered as `application/problem+json`."""

    def __init__(
        self, status: int, detail: str, *, retry_after_s: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)


def base_app(
    title: str,
    description: str,
    engine: Readiness,
    metrics: Metrics,
    *,
    max_body_bytes: int,
    body_limits: Mapping[str, int] | None = None,
    middleware: Sequence[Middleware] = (),
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """An app with health, metrics and error handling. `body_limits` are other limits than `max_body_bytes`, by path;
    `middleware` stands between the edge and the routes and may raise ProblemError."""
    edge = Middleware(Edge, metrics=metrics, max_body_bytes=max_body_bytes, body_limits=body_limits or {})
    app = FastAPI(title=title, description=description, version="1", lifespan=lifespan, middleware=[edge, *middleware])
    app.add_exception_handler(ProblemError, _own_problem)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_problem)

    @app.get("/healthz", response_model=Health, summary="Does the process answer?", tags=["operations"])
    async def healthz() -> Response:
        return _health(Health(status="ok"))

    @app.get(
        "/readyz",
        response_model=Health,
        summary="Has the engine answered a real request?",
        tags=["operations"],
        responses={503: {"model": Health, "description": "Not yet, or not any more."}},
    )
    async def readyz() -> Response:
        if engine.ready:
            return _health(Health(status="ok"))
        return _health(Health(status="unavailable" if engine.known else "starting", detail=engine.trouble), 503)

    @app.get("/metrics", summary="Prometheus metrics", tags=["operations"], response_class=Response)
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the errors a route may answer with."""
    schema = {"schema": Problem.model_json_schema()}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_TYPE: schema}} for status in statuses
    }


def _health(health: Health, status: int = 200) -> Response:
    return Response(health.model_dump_json(), status, media_type="application/json")


def _problem(request_id: str, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    detail = detail.encode("utf-8", "backslashreplace").decode()  # what it quotes may hold unpaired surrogates
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=request_id)
    return Response(problem.model_dump_json(), status, headers, PROBLEM_TYPE)


async def _own_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _problem(request.state.request_id, error.status, error.detail, error.headers)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    explained = [_explain(request, problem)[:_LONGEST_PROBLEM] for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        explained.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    return _problem(request.state.request_id, 422, "; ".join(explained))


def _explain(request: Request, problem: Mapping[str, Any]) -> str:
    """A validation problem as `key: what is wrong`."""
    where, key = problem["loc"][0], ".".join(map(str, problem["loc"][1:]))
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']} at character {key}"
    if where == "body" and not key and "json" not in request.headers.get("content-type", ""):
        return "the body was not read as JSON: send it with Content-Type: application/json"
    return f"{key or where}: {in_words(problem)}"


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400 and error.__cause__ is not None:  # what FastAPI makes of a body that json cannot read
        return _problem(request.state.request_id, 422, f"the body is not JSON: {error.__cause__}")
    return _problem(request.state.request_id, error.status_code, str(error.detail), dict(error.headers or {}))


class Edge:
    """ASGI middleware at the outer edge: request id, body limit, metrics, access log, and the last resort for
    unforeseen errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int, body_limits: Mapping[str, int]) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _OPERATIONS:
            await self._answer(scope, receive, send)
            return
        with traces.requested(scope["method"], dict(scope["headers"])) as span:
            status = await self._answer(scope, receive, send)
            traces.answered(span, scope["method"], _route(scope), status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """The status that was answered with."""
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        logs.request_id.set(request_id)
        started, status = time.monotonic(), 500
        answering = False

        async def send_on(message: Message) -> None:
            nonlocal status, answering
            if message["type"] == "http.response.start":
                status, answering = message["status"], True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        limit = self._body_limits.get(scope["path"], self._max_body_bytes)
        too_large = HTTPException(413, f"the body is larger than this service's limit of {limit} bytes")
        length = headers.get(b"content-length", b"")
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large
            return message

        try:
            if length.isdigit() and int(length) > limit:
                await _problem(request_id, 413, too_large.detail)(scope, receive, send_on)
            else:
                await self._app(scope, receive_within_limit, send_on)
        except ProblemError as problem:
            await _problem(request_id, problem.status, problem.detail, problem.headers)(scope, receive, send_on)
        except Exception as error:
            log.exception("a request failed")
            if answering:
                raise
            await _problem(request_id, 500, f"internal error {type(error).__name__}; see the log for this request id")(
                scope, receive, send_on
            )
        finally:
            self._note(scope, status, time.monotonic() - started)
        return status

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        # What asks for health and metrics comes every few seconds, for ever.
        level = logging.DEBUG if route in _OPERATIONS else logging.INFO
        caller = getattr(scope["state"].get("caller"), "name", None)
        about = {"caller": caller, "route": route, "status": status, "duration_s": round(seconds, 6)}
        log.log(level, "%s %s: %d", scope["method"], route, status, extra=about)


def _route(scope: Scope) -> str:
    """The route's pattern, of which there are few."""
    return getattr(scope.get("route"), "path", "other")
