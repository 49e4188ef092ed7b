"""Who may call: keys and limits at the door, before a body is read.

In: requests. Out: `request.state.caller` for the routes, or 401, 429 or 503 as a problem. Without a keys file everybody
is `ANONYMOUS`: not limited, but for the bound on requests in work that holds for all.
Guarantees: every path needs a key that is not named here as open, so that a new route is never open by oversight; what
a route reports with `spend` is charged to its caller before the answer is out. Raises `KeysError` if the keys file
cannot be used. Waits for: Redis, if rates are shared (see `limits`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preceptor_client.contract import Usage
from preceptor_services.brief_redis import brief_redis
from preceptor_services.keys import ANONYMOUS, Caller, KeyRing
from preceptor_services.limits import (
    Limits,
    LocalBuckets,
    OverLimitError,
    SharedBuckets,
    retry_after_s,
)
from preceptor_services.metrics import Metrics
from preceptor_services.settings import ServiceSettings
from preceptor_services.web import ProblemError, problem_docs

_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
_PAGE = re.compile(r"/|/dashboard/[a-z-]+\.[a-z]+")
_FIGURES = re.compile(r"/metrics|/v1/runs|/v1/runs/[^/]+/rows")
"""Names and numbers, no texts."""
_SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class Access:
    """The keys and limits of one app."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self.keys = KeyRing(settings.auth.keys_file) if settings.auth.keys_file else None
        self._figures_are_open = not settings.auth.metrics
        self._metrics = metrics
        self._redis = brief_redis(settings.store.url) if self.keys and settings.store.url else None
        buckets = SharedBuckets(self._redis, settings.store.namespace, metrics) if self._redis else LocalBuckets()
        self.limits = Limits(buckets, settings.web.max_waiting)

    def is_open(self, path: str) -> bool:
        """Whether anyone may ask for it."""
        if path in _OPEN or _PAGE.fullmatch(path):
            return True
        return self._figures_are_open and _FIGURES.fullmatch(path) is not None

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who sent these headers. Raises ProblemError 401."""
        if self.keys is None:
            return ANONYMOUS
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        key = token.strip() if scheme.casefold() == "bearer" else headers.get(b"x-api-key", b"").decode("latin-1")
        if not key:
            self._metrics.refusals.labels("no_key").inc()
            how = "send Authorization: Bearer KEY, or X-API-Key: KEY"
            raise ProblemError(401, f"this service needs an API key: {how}", headers=_challenge())
        if (caller := self.keys.caller(key)) is None:
            self._metrics.refusals.labels("unknown_key").inc()
            raise ProblemError(401, "this API key is not known here", headers=_challenge('error="invalid_token"'))
        return caller

    @asynccontextmanager
    async def admitted(self, caller: Caller, *, makes_work: bool) -> AsyncIterator[None]:
        """For the length of one request. Raises ProblemError 429 or 503."""
        try:
            if makes_work:
                async with self.limits.place(caller):
                    yield
            else:
                await self.limits.count(caller, makes_work=False)
                yield
        except OverLimitError as error:
            self._metrics.refusals.labels(error.reason).inc()
            wait_s = retry_after_s(error.wait_s)
            status, text = (503 if error.shared else 429), f"{error}: come back in {wait_s} s"
            raise ProblemError(status, text, retry_after_s=wait_s) from None

    async def charge(self, caller: Caller, tokens: int) -> None:
        """What a caller's work cost, once it is known."""
        self._metrics.caller_tokens.labels(caller.name).inc(tokens)
        await self.limits.charge(caller, tokens)

    @property
    def middleware(self) -> Middleware:
        """For `web.base_app`."""
        return Middleware(Door, access=self)

    def describe(self, app: FastAPI) -> None:
        """Tell in the app's OpenAPI document, if there are keys, which routes need one and what is answered without."""
        plain = app.openapi

        def with_keys() -> dict[str, Any]:
            if (document := app.openapi_schema) is None:
                document = plain()
                document.setdefault("components", {})["securitySchemes"] = _SCHEMES
                refusals = {str(status): answer for status, answer in problem_docs(401, 429).items()}
                for path, operations in document["paths"].items():
                    for operation in () if self.is_open(path) else operations.values():
                        operation["security"] = [{name: []} for name in _SCHEMES]
                        operation["responses"].update(refusals)
            return document

        if self.keys is not None:
            app.openapi = with_keys  # type: ignore[method-assign]

    async def aclose(self) -> None:
        """Close the connection to Redis, if there is one."""
        if self._redis is not None:
            await self._redis.aclose()


class Door:
    """ASGI middleware in front of the routes; stands behind `web.Edge`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":

            async def close_and_send(message: Message) -> None:
                if message["type"] != "lifespan.startup.complete":
                    await self._access.aclose()  # before the server takes the app for ended
                await send(message)

            await self._app(scope, receive, close_and_send)
        elif scope["type"] != "http" or self._access.is_open(scope["path"]):
            await self._app(scope, receive, send)
        else:
            caller = self._access.caller(dict(scope["headers"]))
            state = scope.setdefault("state", {})
            state["caller"], state["tokens"] = caller, 0

            async def charge() -> None:
                tokens, state["tokens"] = state["tokens"], 0
                await self._access.charge(caller, tokens)

            async def charge_and_send(message: Message) -> None:
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    await charge()  # before the answer is out: what comes after it meets it, on any replica
                await send(message)

            async with self._access.admitted(caller, makes_work=_makes_work(scope)):
                try:
                    await self._app(scope, receive, charge_and_send)
                finally:
                    await charge()  # for work whose answer nobody took


def _makes_work(scope: Scope) -> bool:
    return bool(scope["method"] == "POST")


def spend(request: Request, usage: Usage) -> None:
    """Note what a request cost, to be charged to its caller."""
    request.state.tokens += usage.tokens


def _challenge(error: str = "") -> dict[str, str]:
    return {"WWW-Authenticate": ", ".join(filter(None, ('Bearer realm="preceptor"', error)))}
