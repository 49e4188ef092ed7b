"""The routes of batches: submit, look, read, follow, cancel.

In: a `BatchStore`, or None where the service has no Redis; then every route says what to set. Out: a router. A batch
is its caller's alone: for everybody else it is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from redis.exceptions import RedisError

from preceptor_client.contract import API_VERSION, Batch, BatchRequest, BatchResult, BatchState, Identifier
from preceptor_services.batches.store import BatchesFullError, BatchReusedError, BatchStore, UnknownBatchError
from preceptor_services.web import ProblemError, problem_docs

BATCHES_PATH = f"/{API_VERSION}/batches"
_RETRY_AFTER_FULL_S = 15
_RETRY_AFTER_AWAY_S = 2
_MOST_RESULTS = 1_000_000


class _Lines(StreamingResponse):
    """One JSON document a line."""

    media_type = "application/x-ndjson"


BatchId = Annotated[Identifier, Path(description="The batch's id, as its submission answered it.")]
Number = Annotated[int, Query(ge=0, le=_MOST_RESULTS, description="Only results after this many.")]
LastEventId = Annotated[
    int | None, Header(ge=0, le=_MOST_RESULTS, description="The last result received: the stream goes on after it.")
]

_EXAMPLES: dict[str, Any] = {
    "two cohorts": {
        "summary": "Two cohorts, judged for safety",
        "value": {
            "id": "nightly-17",
            "items": [
                {
                    "cohort": {"id": f"doc-{index}", "prefix": prefix, "candidates": [{"id": "a", "text": text}]},
                    "axes": ["safety"],
                }
                for index, (prefix, text) in enumerate((("He opened the door and", "smiled."), ("She", "left.")))
            ],
        },
    }
}


def batches_router(store: BatchStore | None) -> APIRouter:
    """`/v1/batches` over `store`."""
    router = APIRouter(prefix=BATCHES_PATH, tags=["batches"])

    def the_store() -> BatchStore:
        if store is None:
            raise ProblemError(404, "this service keeps no batches: set store.url to a Redis")
        return store

    async def found(batch_id: BatchId, request: Request, store: BatchStore = Depends(the_store)) -> Batch:
        with _problems():
            return await store.status(_owner(request), batch_id)

    @router.post("", status_code=202, responses=problem_docs(404, 409, 413, 422, 503), summary="Submit a batch")
    async def submit(
        body: Annotated[BatchRequest, Body(openapi_examples=_EXAMPLES)],
        request: Request,
        store: BatchStore = Depends(the_store),
    ) -> Batch:
        """Its items are judged as the teacher has room. Repeat a submission with its `id` after a lost connection: the
        batch is made once."""
        with _problems():
            return await store.submit(_owner(request), body)

    @router.get("/{batch_id}", responses=problem_docs(404, 422, 503), summary="A batch as it stands")
    async def status(batch: Batch = Depends(found)) -> Batch:
        """How many items have their result."""
        return batch

    @router.get(
        "/{batch_id}/results",
        response_class=_Lines,
        responses={
            200: {"description": "One `BatchResult` a line.", "model": BatchResult},
            **problem_docs(404, 422, 503),
        },
        summary="The results there are",
    )
    async def results(
        request: Request,
        batch: Batch = Depends(found),
        store: BatchStore = Depends(the_store),
        after: Number = 0,
    ) -> _Lines:
        """In the order in which they became ready; each names the place of its item in the batch."""
        numbered = store.results_after(_owner(request), batch.id, after)
        return _Lines(each.result + "\n" async for each in numbered)

    @router.get(
        "/{batch_id}/events",
        response_class=EventSourceResponse,
        responses=problem_docs(404, 422, 503),
        summary="The results as they come",
    )
    async def events(
        request: Request,
        batch: Batch = Depends(found),
        store: BatchStore = Depends(the_store),
        last_event_id: LastEventId = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """Server-sent events: `result`, whose data is a `BatchResult` and whose id is its number, and `done`, whose
        data is the `Batch`, when it is done or cancelled. A stream that ends without `done` was broken off."""
        owner = _owner(request)
        stopping: asyncio.Event | None = getattr(request.app.state, "stopping", None)
        try:
            async for each in store.follow(owner, batch.id, last_event_id or 0, stopping):
                yield ServerSentEvent(event="result", id=str(each.number), raw_data=each.result)
            if stopping is not None and stopping.is_set():
                return  # in the middle, perhaps; the batch may have come to its end since
            ended = await store.status(owner, batch.id)
            if ended.state is not BatchState.RUNNING:
                yield ServerSentEvent(event="done", data=ended)
        except (UnknownBatchError, RedisError):
            return  # it expired, or Redis cannot be used: who comes back is told

    @router.post("/{batch_id}/cancel", responses=problem_docs(404, 422, 503), summary="Stop a batch")
    async def cancel(request: Request, batch: Batch = Depends(found), store: BatchStore = Depends(the_store)) -> Batch:
        """Items without a result get none; the results there are stay. A batch that has ended stays as it is."""
        with _problems():
            return await store.cancel(_owner(request), batch.id)

    return router


def _owner(request: Request) -> str:
    """The name of the caller's API key."""
    caller = getattr(request.state, "caller", None)
    return caller.name if caller is not None else "anonymous"


@contextmanager
def _problems() -> Iterator[None]:
    """Turns what the store raises into problems."""
    try:
        yield
    except UnknownBatchError as error:
        raise ProblemError(404, str(error)) from None
    except BatchReusedError as error:
        raise ProblemError(409, str(error)) from None
    except BatchesFullError as error:
        raise ProblemError(503, str(error), retry_after_s=_RETRY_AFTER_FULL_S) from None
    except RedisError as error:
        raise ProblemError(
            503, f"the batches' Redis cannot be used: {error}", retry_after_s=_RETRY_AFTER_AWAY_S
        ) from None
