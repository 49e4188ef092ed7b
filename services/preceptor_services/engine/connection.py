"""HTTP to one server: JSON there and back.

In: a path and a body. Out: the parsed reply, or an `EngineError` that says whether repeating can help.
Waits for: the server, at most `engine.timeout_s` or the patience that is given.
"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from preceptor_services.engine.errors import EngineError
from preceptor_services.engine.protocol import failure_of
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings

_CONNECT_S = 5.0
_KEEP_ALIVE_S = 4.0
"""Shorter than vLLM keeps an idle connection, so that it is never closed under a request."""


class Connection:
    """A connection pool. `name` is the server's host and port."""

    def __init__(
        self, url: str, settings: EngineSettings, metrics: Metrics, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"} if settings.api_key else {}
        size = settings.concurrency + 1  # the watch asks for no place
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={**headers, "Content-Type": "application/json"},
            limits=httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=_KEEP_ALIVE_S),
            transport=transport,
        )
        self.url = url
        self.name = self._http.base_url.netloc.decode()
        self._timeout_s = settings.timeout_s
        self._metrics = metrics

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Any = None, *, patience_s: float | None = None) -> Any:
        """One exchange. Raises EngineError."""
        patience_s = patience_s or self._timeout_s
        timeout = httpx.Timeout(patience_s, connect=min(_CONNECT_S, patience_s), pool=None)
        content = None if body is None else json.dumps(body).encode()
        started = time.monotonic()
        self._metrics.engine_calls.inc()
        try:
            reply = await self._http.request(method, path, content=content, timeout=timeout)
        except httpx.ConnectTimeout:
            raise EngineError("unreachable", f"no connection to the engine at {self.url}") from None
        except httpx.TimeoutException:
            raise EngineError("timeout", f"no answer from {self.url}{path} within {patience_s:g} s") from None
        except httpx.TransportError as error:
            raise EngineError("unreachable", f"the engine at {self.url} is not to be reached: {error!r}") from None
        finally:
            self._metrics.engine_seconds.observe(time.monotonic() - started)
        if reply.status_code != 200:
            raise failure_of(reply, path)
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError):
            raise EngineError("broken", f"{path} answered with something else than JSON") from None
