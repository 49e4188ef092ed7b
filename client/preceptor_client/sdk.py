"""The clients of the judge and rewrite services: `PreceptorClient`, and `AsyncPreceptorClient` with the same methods.

    with PreceptorClient(judge_url="http://judge:8101") as client:
        response = client.judge_texts("Paris is", ["the capital of France.", "a fish."])

In: contract messages. Out: contract messages, or a `PreceptorError`. Guarantees: what may pass by itself is tried
again, with growing pauses (see `calls`), nothing else is. Waits for: a free connection, the answer (bounded), pauses.
One client may be shared by many threads, or by all tasks of one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import EventSource

from preceptor_client.batches import Reading, cancel_call, status_call, submit_call
from preceptor_client.calls import (
    AnswerT,
    Call,
    Outcome,
    Service,
    authorization,
    endpoint,
    health_of,
    http_settings,
    judge_call,
    judge_texts_request,
    rewrite_call,
    rubrics_call,
)
from preceptor_client.contract import (
    Batch,
    BatchResult,
    Health,
    JudgeRequest,
    JudgeResponse,
    RewriteRequest,
    RewriteResponse,
    RubricList,
    RubricSpec,
    Sampling,
)
from preceptor_client.settings import ClientSettings


def _settings(
    judge_url: str | None, rewrite_url: str | None, api_key: str | None, settings: ClientSettings | None
) -> ClientSettings:
    given = {"judge_url": judge_url, "rewrite_url": rewrite_url, "api_key": api_key}
    base = settings or ClientSettings()
    return ClientSettings(**{**base.model_dump(), **{name: value for name, value in given.items() if value}})


class PreceptorClient:
    """Calls the services and waits. What is not given comes from `settings`, else from the environment. `transport`
    takes the place of the network."""

    def __init__(
        self,
        judge_url: str | None = None,
        rewrite_url: str | None = None,
        *,
        api_key: str | None = None,
        settings: ClientSettings | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = _settings(judge_url, rewrite_url, api_key, settings)
        self._http = httpx.Client(**http_settings(self._settings), transport=transport)

    def judge(self, request: JudgeRequest, *, idempotency_key: str | None = None) -> JudgeResponse:
        """A verdict for every candidate on every axis asked for."""
        return self._send(judge_call(request, self._settings, idempotency_key))

    def judge_texts(
        self,
        prefix: str,
        texts: Sequence[str],
        *,
        axes: Sequence[str] | None = None,
        rubrics: Sequence[RubricSpec] = (),
        reference: str | None = None,
        sampling: Sampling | None = None,
        deadline_s: float | None = None,
    ) -> JudgeResponse:
        """Judge plain texts as continuations of `prefix`, on `axes` and those of `rubrics`; on all three if neither is
        given. The verdicts of `texts[i]` have the candidate id `c<i>`."""
        return self.judge(
            judge_texts_request(
                prefix,
                texts,
                axes=axes,
                rubrics=rubrics,
                reference=reference,
                sampling=sampling,
                deadline_s=deadline_s,
            )
        )

    def rewrite(self, request: RewriteRequest, *, idempotency_key: str | None = None) -> RewriteResponse:
        """The teacher's version of a suffix: a copy if it is good, repaired otherwise."""
        return self._send(rewrite_call(request, self._settings, idempotency_key))

    def rubrics(self) -> RubricList:
        """Every rubric that the judge can be asked for."""
        return self._send(rubrics_call(self._settings))

    def submit_batch(self, items: Iterable[JudgeRequest], *, batch_id: str | None = None) -> Batch:
        """Hand over many requests at once, to be judged as the teacher has room. The same id with the same items again
        finds the batch that is there."""
        return self._send(submit_call(items, batch_id, self._settings))

    def batch(self, batch_id: str) -> Batch:
        """A batch as it stands."""
        return self._send(status_call(batch_id, self._settings))

    def batch_results(self, batch_id: str, *, after: int = 0) -> Iterator[BatchResult]:
        """The results of a batch as they come, until it is done or cancelled; `after` leaves out those received before.
        Rides through lost connections and restarts of the service."""
        reading = Reading(batch_id, self._settings, after)
        while not reading.ended:
            outcome: Outcome | None = None
            try:
                with self._http.stream(**reading.arguments()) as response:
                    if response.is_success:
                        for event in EventSource(response).iter_sse():
                            if result := reading.read(event):
                                yield result
                    else:
                        response.read()
                        outcome = response
            except httpx.TransportError as error:
                outcome = error
            if not reading.ended:
                time.sleep(reading.pause_after(outcome))

    def cancel_batch(self, batch_id: str) -> Batch:
        """Stop a batch: what has no result gets none."""
        return self._send(cancel_call(batch_id, self._settings))

    def health(self, service: Service) -> Health:
        """Whether a service is ready, in its own words; `unavailable` if it does not answer. Never raises for that."""
        return health_of(self._attempt(_health_arguments(self._settings, service)))

    def ready(self, *services: Service) -> bool:
        """Whether these services (both, if none is named) have a teacher that answers."""
        return all(self.health(service).status == "ok" for service in services or ("judge", "rewrite"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call[AnswerT]) -> AnswerT:
        attempt = 1
        while True:
            outcome = self._attempt(call.arguments())
            delay = call.delay_after(attempt, outcome)
            if delay is None:
                return call.result(outcome)
            time.sleep(delay)
            attempt += 1

    def _attempt(self, arguments: dict[str, Any]) -> Outcome:
        try:
            return self._http.request(**arguments)
        except httpx.TransportError as error:
            return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPreceptorClient:
    """Calls the services from an event loop; otherwise as `PreceptorClient`."""

    def __init__(
        self,
        judge_url: str | None = None,
        rewrite_url: str | None = None,
        *,
        api_key: str | None = None,
        settings: ClientSettings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = _settings(judge_url, rewrite_url, api_key, settings)
        self._http = httpx.AsyncClient(**http_settings(self._settings), transport=transport)

    async def judge(self, request: JudgeRequest, *, idempotency_key: str | None = None) -> JudgeResponse:
        """A verdict for every candidate on every axis asked for."""
        return await self._send(judge_call(request, self._settings, idempotency_key))

    async def judge_texts(
        self,
        prefix: str,
        texts: Sequence[str],
        *,
        axes: Sequence[str] | None = None,
        rubrics: Sequence[RubricSpec] = (),
        reference: str | None = None,
        sampling: Sampling | None = None,
        deadline_s: float | None = None,
    ) -> JudgeResponse:
        """Judge plain texts as continuations of `prefix`, on `axes` and those of `rubrics`; on all three if neither is
        given. The verdicts of `texts[i]` have the candidate id `c<i>`."""
        return await self.judge(
            judge_texts_request(
                prefix,
                texts,
                axes=axes,
                rubrics=rubrics,
                reference=reference,
                sampling=sampling,
                deadline_s=deadline_s,
            )
        )

    async def rewrite(self, request: RewriteRequest, *, idempotency_key: str | None = None) -> RewriteResponse:
        """The teacher's version of a suffix: a copy if it is good, repaired otherwise."""
        return await self._send(rewrite_call(request, self._settings, idempotency_key))

    async def rubrics(self) -> RubricList:
        """Every rubric that the judge can be asked for."""
        return await self._send(rubrics_call(self._settings))

    async def submit_batch(self, items: Iterable[JudgeRequest], *, batch_id: str | None = None) -> Batch:
        """Hand over many requests at once, to be judged as the teacher has room. The same id with the same items again
        finds the batch that is there."""
        return await self._send(submit_call(items, batch_id, self._settings))

    async def batch(self, batch_id: str) -> Batch:
        """A batch as it stands."""
        return await self._send(status_call(batch_id, self._settings))

    async def batch_results(self, batch_id: str, *, after: int = 0) -> AsyncGenerator[BatchResult, None]:
        """The results of a batch as they come, until it is done or cancelled; `after` leaves out those received before.
        Rides through lost connections and restarts of the service."""
        reading = Reading(batch_id, self._settings, after)
        while not reading.ended:
            outcome: Outcome | None = None
            try:
                async with self._http.stream(**reading.arguments()) as response:
                    if response.is_success:
                        async for event in EventSource(response).aiter_sse():
                            if result := reading.read(event):
                                yield result
                    else:
                        await response.aread()
                        outcome = response
            except httpx.TransportError as error:
                outcome = error
            if not reading.ended:
                await asyncio.sleep(reading.pause_after(outcome))

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Stop a batch: what has no result gets none."""
        return await self._send(cancel_call(batch_id, self._settings))

    async def health(self, service: Service) -> Health:
        """Whether a service is ready, in its own words; `unavailable` if it does not answer. Never raises for that."""
        return health_of(await self._attempt(_health_arguments(self._settings, service)))

    async def ready(self, *services: Service) -> bool:
        """Whether these services (both, if none is named) have a teacher that answers."""
        for service in services or ("judge", "rewrite"):
            if (await self.health(service)).status != "ok":
                return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: Call[AnswerT]) -> AnswerT:
        attempt = 1
        while True:
            outcome = await self._attempt(call.arguments())
            delay = call.delay_after(attempt, outcome)
            if delay is None:
                return call.result(outcome)
            await asyncio.sleep(delay)
            attempt += 1

    async def _attempt(self, arguments: dict[str, Any]) -> Outcome:
        try:
            return await self._http.request(**arguments)
        except httpx.TransportError as error:
            return error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _health_arguments(settings: ClientSettings, service: Service) -> dict[str, Any]:
    timeout = httpx.Timeout(settings.connect_timeout_s)
    url = endpoint(settings, service) + "/readyz"
    return {"method": "GET", "url": url, "headers": authorization(settings), "timeout": timeout}
