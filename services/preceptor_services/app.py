"""The two HTTP services: judge and rewrite. Each is its own process with its own engine pool.

In: `ServiceSettings`. Out: a FastAPI app that speaks the contract. The engine is opened and watched for the app's
lifetime; until it has answered a real request, `/readyz` and the service's route answer 503.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, Request, Response
from pydantic import BaseModel

from preceptor_client.contract import (
    JudgeRequest,
    JudgeResponse,
    RewriteRequest,
    RewriteResponse,
    RubricList,
)
from preceptor_services.assembly import assemble
from preceptor_services.auth import Access, spend
from preceptor_services.batches.routes import BATCHES_PATH
from preceptor_services.batches.service import Batches
from preceptor_services.dashboard import Dashboard
from preceptor_services.engine import EngineError
from preceptor_services.idempotency import KeyReusedError, Replays
from preceptor_services.judging import UnjudgeableError
from preceptor_services.logs import log_texts
from preceptor_services.metrics import Metrics
from preceptor_services.rewriting import Rewriter
from preceptor_services.settings import ServiceSettings
from preceptor_services.templates import PromptError
from preceptor_services.web import ProblemError, base_app, problem_docs

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
    """`POST /v1/judge`, `/v1/batches`, `GET /v1/rubrics` and the dashboard. Raises RubricError, KeysError or
    QueueMisfit if the rubrics, the keys file or a Redis's URL cannot be used."""
    parts = assemble(settings)
    access = Access(settings, parts.metrics)
    batches = Batches(settings, parts, access)
    dashboard = Dashboard(settings, "judge")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.running(), batches.running(), dashboard.running():
            yield

    app = base_app(
        "Preceptor judge",
        "Judges the candidates of a cohort: a typed verdict for each on every axis.",
        parts.engines,
        parts.metrics,
        max_body_bytes=settings.web.max_body_bytes,
        body_limits={BATCHES_PATH: settings.batches.max_body_bytes},
        middleware=[access.middleware],
        lifespan=lifespan,
    )
    access.describe(app)
    for router in (batches.router, *dashboard.routers):
        app.include_router(router)
    answer = _Answering(parts.metrics, settings.web.idempotency_entries)

    @app.post("/v1/judge", response_model=JudgeResponse, responses=_PROBLEMS, summary="Judge a cohort", tags=["judge"])
    async def post_judge(
        request: Request,
        body: Annotated[JudgeRequest, Body(openapi_examples=_JUDGE_EXAMPLES)],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """A verdict for every candidate on every axis. A call that failed or an answer that names no verdict is a
        status, never a score."""
        return await answer(
            request, body, idempotency_key, lambda: parts.judge.judge(body, priority=request.state.caller.priority)
        )

    @app.get("/v1/rubrics", response_model=RubricList, summary="The rubrics that can be asked for", tags=["judge"])
    async def get_rubrics() -> Response:
        """Every rubric with its prompt, its labels, and a hash that changes with anything that changes a verdict."""
        return Response(parts.rubrics.listing.model_dump_json(), media_type="application/json")

    return app


def rewrite_app(settings: ServiceSettings) -> FastAPI:
    """`POST /v1/rewrite` and the dashboard. Raises RubricError, KeysError or QueueMisfit as `judge_app` does."""
    parts = assemble(settings)
    access = Access(settings, parts.metrics)
    rewriter = Rewriter(parts.engine, parts.rubrics, settings.rewriting, parts.metrics, parts.judge)
    dashboard = Dashboard(settings, "rewrite")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.running(*rewriter.probes), dashboard.running():
            yield

    app = base_app(
        "Preceptor rewrite",
        "Copies a good suffix, repairs a bad one.",
        parts.engine,
        parts.metrics,
        max_body_bytes=settings.web.max_body_bytes,
        middleware=[access.middleware],
        lifespan=lifespan,
    )
    access.describe(app)
    for router in dashboard.routers:
        app.include_router(router)
    answer = _Answering(parts.metrics, settings.web.idempotency_entries)

    @app.post(
        "/v1/rewrite", response_model=RewriteResponse, responses=_PROBLEMS, summary="Rewrite a suffix", tags=["rewrite"]
    )
    async def post_rewrite(
        request: Request,
        body: Annotated[RewriteRequest, Body(openapi_examples=_REWRITE_EXAMPLES)],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """The suffix as it was (`unchanged`) or repaired (`rewritten`); no text if the teacher refused or was lost."""
        return await answer(
            request, body, idempotency_key, lambda: rewriter.rewrite(body, priority=request.state.caller.priority)
        )

    return app


class _Answering:
    """Does a request's work once per Idempotency-Key, and turns what it raises into problems."""

    def __init__(self, metrics: Metrics, replay_bound: int) -> None:
        self._metrics = metrics
        self._replays: Replays[JudgeResponse | RewriteResponse] = Replays(
            replay_bound, keep=lambda answer: answer.final
        )

    async def __call__(
        self,
        request: Request,
        body: BaseModel,
        key: str | None,
        work: Callable[[], Awaitable[JudgeResponse | RewriteResponse]],
    ) -> Response:
        replayed = False
        try:
            if key is None:
                answer = await work()
            else:
                fingerprint = hashlib.sha256(body.model_dump_json().encode()).digest()
                owner = request.state.caller.name
                answer, replayed = await self._replays.once(key, fingerprint, work, owner=owner)
        except (UnjudgeableError, KeyReusedError, PromptError) as error:
            raise ProblemError(422, str(error)) from None
        except EngineError as error:
            raise ProblemError(503, str(error), retry_after_s=_RETRY_AFTER_S) from None
        if replayed:
            self._metrics.replays.inc()
        else:
            spend(request, answer.usage)
        log_texts(body, answer)
        return Response(answer.model_dump_json(), media_type="application/json")
