"""Running an ASGI app until told to stop: uvicorn without its own handling of signals, so that the process decides
how to end.

In: an app, an address, an event. Returns once the event is set and the requests in flight are answered.
Raises `ServingError` if the address cannot be had. Waits for `stop`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI

_GRACE_S = 10
"""Requests still open this long after `stop` are cut off."""


class ServingError(RuntimeError):
    """The service cannot listen where it was told to."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. A second signal of a kind ends the process there and then."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop


async def serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve `app` at `listener` (see `listen`) until `stop`, and close it. What streams without end asks
    `app.state.stopping`."""
    app.state.stopping = stop
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S, server_header=False
    )
    with listener:
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopped.cancel()
        await serving


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at `host`. Raises ServingError if there is no such host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServingError(f"cannot listen at {host}: {error.strerror}") from None
    return all(ip_address(str(address[0])).is_loopback for *_, address in found)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ServingError."""
    if not 0 <= port <= 65535:  # the resolver would take it, and listen at its last 16 bits
        raise ServingError(f"cannot listen at {host}:{port}: ports go from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServingError(f"cannot listen at {host}:{port}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ServingError(f"cannot listen at {host}:{port}: {error.strerror}") from None
    return listener
