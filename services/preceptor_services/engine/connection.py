"""HTTP to one server: JSON there and back.

In: a path and a body. Out: the parsed reply, or an `EngineError` that says whether repeating can help.
Waits for: the server, at most `engine.timeout_s` or the patience that is given.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

from preceptor_client import tracing
from preceptor_client.masking import shown
from preceptor_services.engine.errors import EngineError
from preceptor_services.engine.protocol import failure_of
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings

_CONNECT_S = 5.0
_KEEP_ALIVE_S = 4.0
"""Shorter than vLLM keeps an idle connection, so that it is never closed under a request."""


@dataclass(frozen=True)
class Reply:
    """What came back. `retry_after` is that header, empty without it."""

    status: int
    content: bytes
    retry_after: str = ""


class Transport(Protocol):
    """Carries one exchange. Raises aiohttp.ClientError or OSError when it was broken, TimeoutError when it took longer
    than `patience_s`."""

    async def exchange(self, method: str, url: str, content: bytes | None, patience_s: float) -> Reply:
        """What the server says to it."""

    async def aclose(self) -> None:
        """Let go of the server."""


class Pool:
    """Connections to one server, opened as they are needed; the proxy that the environment names is used.
    aiohttp's, because httpx' pool looks at all its connections for every request."""

    def __init__(self, url: str, settings: EngineSettings) -> None:
        self._settings = settings
        target = URL(url)
        bypassed = proxy_bypass(target.authority)
        proxies = getproxies()
        self._proxy = None if bypassed else proxies.get(target.scheme) or proxies.get("all")
        self._secure = target.scheme == "https"
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, method: str, url: str, content: bytes | None, patience_s: float) -> Reply:
        session = self._session = self._session or self._opened()
        timeout = aiohttp.ClientTimeout(total=patience_s, sock_connect=min(_CONNECT_S, patience_s))
        async with session.request(
            method,
            url,
            data=content,
            timeout=timeout,
            allow_redirects=False,
            proxy=self._proxy,
            headers=tracing.headers(),
        ) as reply:
            return Reply(reply.status, await reply.read(), reply.headers.get("Retry-After", ""))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        key = self._settings.api_key
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._settings.concurrency + 1,  # the watch asks for no place
                keepalive_timeout=_KEEP_ALIVE_S,
                ssl=httpx.create_ssl_context() if self._secure else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}),
            },
        )


class Connection:
    """To one server, by `transport` or a pool of its own. `name` is the server's host and port, and its path if it has
    one; `url` is for messages: its password is left out."""

    def __init__(self, url: str, settings: EngineSettings, metrics: Metrics, transport: Transport | None) -> None:
        target = URL(url)
        self.url = shown(url)
        self.name = f"{target.host_port_subcomponent}{target.raw_path.rstrip('/')}"
        self._base = url
        self._transport = transport or Pool(url, settings)
        self._timeout_s = settings.timeout_s
        self._metrics = metrics

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def call(self, method: str, path: str, body: Any = None, *, patience_s: float | None = None) -> Any:
        """One exchange. Raises EngineError."""
        patience_s = patience_s or self._timeout_s
        content = None if body is None else json.dumps(body).encode()
        started = time.monotonic()
        self._metrics.engine_calls.inc()
        try:
            reply = await self._transport.exchange(method, self._base + path, content, patience_s)
        except aiohttp.ConnectionTimeoutError:
            raise EngineError("unreachable", f"no connection to the engine at {self.url}") from None
        except TimeoutError:
            raise EngineError("timeout", f"no answer from {self.url}{path} within {patience_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            what = f"{type(error).__name__}: {error}"
            raise EngineError("unreachable", f"the engine at {self.url} is not to be reached: {what}") from None
        finally:
            self._metrics.engine_seconds.observe(time.monotonic() - started)
        if reply.status != 200:
            text = reply.content.decode("utf-8", "replace")
            raise failure_of(reply.status, text, reply.retry_after, path)
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError):
            raise EngineError("broken", f"{path} answered with something else than JSON") from None
