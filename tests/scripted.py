"""An engine's server as a function, without a socket: for faults that no real server makes on command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
import httpx

from preceptor_services.engine.connection import Reply


class Scripted:
    """A transport that asks `handler`. Its httpx errors become those of a broken exchange, as aiohttp has them."""

    def __init__(self, handler: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self._handler = handler

    async def exchange(self, method: str, url: str, content: bytes | None, patience_s: float) -> Reply:
        try:
            reply = await self._handler(httpx.Request(method, url, content=content))
        except httpx.TimeoutException as error:
            raise TimeoutError(str(error)) from None
        except httpx.TransportError as error:
            raise aiohttp.ClientConnectionError(str(error)) from None
        return Reply(reply.status_code, reply.content, reply.headers.get("Retry-After", ""))

    async def aclose(self) -> None:
        """There is nothing to close."""
