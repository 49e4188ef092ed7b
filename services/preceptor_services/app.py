"""The two HTTP services: judge and rewrite. Each is its own process with its own engine pool.

In: `ServiceSettings`. Out: a FastAPI app that speaks the contract. The engine is opened and watched for the app's
lifetime; until it has answered a real request, `/readyz` and the service's route answer 503.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, Response
from pydantic import BaseModel

from preceptor_client.contract import (
    JudgeRequest,
    JudgeResponse,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Status,
)
from preceptor_services.engine import Engine, EngineError, Generation
from preceptor_services.idempotency import KeyReusedError, Replays
from preceptor_services.judging import Judge, UnjudgeableError
from preceptor_services.metrics import Metrics
from preceptor_services.rewriting import Rewriter
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import ServiceSettings
from preceptor_services.web import Lifespan, ProblemError, base_app, problem_docs

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=128,
        description="Requests with the same key are worked on once: repeat a request with it after a lost connection.",
    ),
]
_RETRY_AFTER_S = 2
_PROBLEMS = problem_docs(413, 422, 503)

_JUDGE_EXAMPLES: dict[str, Any] = {
    "two rollouts": {
        "summary": "Two rollouts and the original, on all axes",
        "value": {
            "cohort": {
                "id": "doc-17",
                "prefix": "The heart of an octopus is unusual: the animal has",
                "reference": "three of them, two for the gills and one for the rest of the body.",
                "candidates": [
                    {
                        "id": "original",
                        "origin": "original",
                        "text": "three of them, two for the gills and one for the rest.",
                    },
                    {"id": "rollout-0", "origin": "rollout", "text": "three hearts, and its blood is blue."},
                    {"id": "rollout-1", "origin": "rollout", "text": "has has seven the of hearts wings."},
                ],
            },
            "axes": ["quality", "safety", "factuality"],
        },
    },
    "votes": {
        "summary": "One candidate, one axis, five votes",
        "value": {
            "cohort": {"id": "c1", "prefix": "He opened the door and", "candidates": [{"id": "a", "text": "smiled."}]},
            "axes": ["safety"],
            "sampling": {"votes": 5, "temperature": 1.0, "top_p": 0.6},
            "deadline_s": 30,
        },
    },
}
_REWRITE_EXAMPLES: dict[str, Any] = {
    "repair": {
        "summary": "A suffix that needs repair",
        "value": {"prefix": "The octopus has", "suffix": " three hearts and and and seven wings."},
    }
}


def judge_app(settings: ServiceSettings) -> FastAPI:
    """`POST /v1/judge`. Raises RubricError if the rubric set cannot be used."""
    metrics = Metrics()
    engine = Engine(settings.engine, metrics)
    judge = Judge(engine, load_rubrics(*settings.rubrics), settings.judging, metrics)
    app = base_app(
        "Preceptor judge",
        "Judges the candidates of a cohort: a typed verdict for each on every axis.",
        engine,
        metrics,
        max_body_bytes=settings.web.max_body_bytes,
        lifespan=watching(engine, judge.probes),
    )
    answer = _Answering(metrics, settings.web.idempotency_entries)

    @app.post("/v1/judge", response_model=JudgeResponse, responses=_PROBLEMS, summary="Judge a cohort", tags=["judge"])
    async def post_judge(
        body: Annotated[JudgeRequest, Body(openapi_examples=_JUDGE_EXAMPLES)], idempotency_key: IdempotencyKey = None
    ) -> Response:
        """A verdict for every candidate on every axis. A call that failed or an answer that names no verdict is a
        status, never a score."""
        return await answer(body, idempotency_key, lambda: judge.judge(body))

    return app


def rewrite_app(settings: ServiceSettings) -> FastAPI:
    """`POST /v1/rewrite`. Raises RubricError if the rubric set cannot be used."""
    metrics = Metrics()
    engine = Engine(settings.engine, metrics)
    rewriter = Rewriter(engine, load_rubrics(*settings.rubrics), settings.rewriting, metrics)
    app = base_app(
        "Preceptor rewrite",
        "Copies a good suffix, repairs a bad one.",
        engine,
        metrics,
        max_body_bytes=settings.web.max_body_bytes,
        lifespan=watching(engine, rewriter.probes),
    )
    answer = _Answering(metrics, settings.web.idempotency_entries)

    @app.post(
        "/v1/rewrite", response_model=RewriteResponse, responses=_PROBLEMS, summary="Rewrite a suffix", tags=["rewrite"]
    )
    async def post_rewrite(
        body: Annotated[RewriteRequest, Body(openapi_examples=_REWRITE_EXAMPLES)],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """The suffix as it was (`unchanged`) or repaired (`rewritten`); no text if the teacher refused or was lost."""
        return await answer(body, idempotency_key, lambda: rewriter.rewrite(body))

    return app


def watching(engine: Engine, probes: Sequence[Generation]) -> Lifespan:
    """A lifespan that keeps the engine open and watched."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine:
            watch = asyncio.create_task(engine.watch(probes))
            try:
                yield
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch

    return lifespan


class _Answering:
    """Does a request's work once per Idempotency-Key, and turns what it raises into problems."""

    def __init__(self, metrics: Metrics, replay_bound: int) -> None:
        self._metrics = metrics
        self._replays: Replays[BaseModel] = Replays(replay_bound, keep=_is_final)

    async def __call__(self, body: BaseModel, key: str | None, work: Callable[[], Awaitable[BaseModel]]) -> Response:
        try:
            if key is None:
                answer = await work()
            else:
                fingerprint = hashlib.sha256(body.model_dump_json().encode()).digest()
                answer, replayed = await self._replays.once(key, fingerprint, work)
                if replayed:
                    self._metrics.replays.inc()
        except (UnjudgeableError, KeyReusedError) as error:
            raise ProblemError(422, str(error)) from None
        except EngineError as error:
            raise ProblemError(503, str(error), retry_after_s=_RETRY_AFTER_S) from None
        return Response(answer.model_dump_json(), media_type="application/json")


def _is_final(answer: BaseModel) -> bool:
    """Whether asking again could bring nothing better: no call to the teacher failed."""
    if isinstance(answer, JudgeResponse):
        return all(verdict.status is not Status.FAILED for verdict in answer.verdicts)
    return not (isinstance(answer, RewriteResponse) and answer.outcome is RewriteOutcome.FAILED)
