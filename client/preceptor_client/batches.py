"""Batches from the caller's side: the calls, and reading results as they come. Pure, but for the clock.

In: requests and ids. Out: `Call`s, and for a stream of results a `Reading`: it knows what to ask for, reads the events
that come, and decides after a break whether and when to ask again. The sync and the async client are each a loop of a
few lines around it. Results are numbered, so that a stream that broke goes on after the last one received.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from preceptor_client.calls import Call, Outcome, endpoint
from preceptor_client.config import describe
from preceptor_client.contract import API_VERSION, Batch, BatchRequest, BatchResult, JudgeRequest
from preceptor_client.errors import UnexpectedResponseError
from preceptor_client.settings import ClientSettings

_SILENCE_S = 60.0
"""The service sends something every 15 seconds. Without a word for this long the connection is dead."""


def submit_call(items: Iterable[JudgeRequest], batch_id: str | None, settings: ClientSettings) -> Call[Batch]:
    """The call that submits a batch. It always has an id, so that it can be repeated."""
    request = BatchRequest(id=batch_id or uuid.uuid4().hex, items=tuple(items))
    return Call(_url(settings), request, Batch, settings)


def status_call(batch_id: str, settings: ClientSettings) -> Call[Batch]:
    """The call that looks at a batch."""
    return Call(f"{_url(settings)}/{batch_id}", None, Batch, settings, method="GET")


def cancel_call(batch_id: str, settings: ClientSettings) -> Call[Batch]:
    """The call that stops a batch."""
    return Call(f"{_url(settings)}/{batch_id}/cancel", None, Batch, settings)


class Reading:
    """Reads the results of a batch, over as many connections as it takes."""

    def __init__(
        self, batch_id: str, settings: ClientSettings, after: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call: Call[Batch] = Call(f"{_url(settings)}/{batch_id}/events", None, Batch, settings, method="GET")
        self._settings = settings
        self._number = after
        self._clock = clock
        self._heard_at = clock()
        self._breaks = 0
        self.ended: Batch | None = None
        """The batch, once all its results were read."""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `httpx.Client.stream`."""
        arguments = self._call.arguments()
        headers = {**arguments["headers"], "Accept": "text/event-stream", "Last-Event-ID": str(self._number)}
        timeout = httpx.Timeout(_SILENCE_S, connect=self._settings.connect_timeout_s, pool=None)
        return {**arguments, "headers": headers, "timeout": timeout}

    def read(self, event: ServerSentEvent) -> BatchResult | None:
        """The result that an event brings, if it brings one. Raises UnexpectedResponseError."""
        self._heard_at, self._breaks = self._clock(), 0
        try:
            if event.event == "result":
                result = BatchResult.model_validate_json(event.data)
                self._number = int(event.id)
                return result
            if event.event == "done":
                self.ended = Batch.model_validate_json(event.data)
        except ValueError as error:
            what = describe(error) if isinstance(error, ValidationError) else str(error)
            reason = f"{self._call.url}: an event does not follow the contract:\n{what}"
            raise UnexpectedResponseError(reason, request_id=self._call.request_id) from None
        return None

    def pause_after(self, outcome: Outcome | None) -> float:
        """Seconds to wait before asking again; `outcome` is None if the stream ended early. Raises PreceptorError if
        asking again cannot help, or has not for as long as an answer may take."""
        if outcome is None or isinstance(outcome, httpx.ReadTimeout):
            outcome = _BROKEN_OFF
        self._breaks += 1
        # A call gives up after so many retries; here time decides.
        delay = self._call.delay_after(min(self._breaks, max(1, self._settings.retries)), outcome)
        if delay is None or self._clock() - self._heard_at > self._settings.read_timeout_s:
            self._call.result(outcome)
        return delay or 0.0


_BROKEN_OFF = httpx.RemoteProtocolError("the stream of results ended before the batch did")


def _url(settings: ClientSettings) -> str:
    return endpoint(settings, "judge") + f"/{API_VERSION}/batches"
