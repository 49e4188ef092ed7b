"""The fake itself: one address that answers as the judge and the rewrite service do. See the package."""

from __future__ import annotations

import re
import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx

from preceptor_client.contract import (
    API_VERSION,
    Axis,
    BatchRequest,
    Health,
    JudgeRequest,
    Message,
    RewriteRequest,
    RubricList,
)
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient
from preceptor_client.settings import ClientSettings
from preceptor_client.testing.answers import (
    ProblemError,
    RequestT,
    copied,
    decoded,
    failed,
    rubric_info,
    score_by_hash,
)
from preceptor_client.testing.batches import FakeBatches, number_of
from preceptor_client.testing.serving import serving
from preceptor_client.testing.teacher import FakeTeacher, Rewrite, Score

URL = "http://preceptor.test"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")


@dataclass(frozen=True)
class Refusal:
    """A request is answered with this status, without being looked at."""

    status: int
    retry_after_s: float | None = None
    detail: str = "as the test's script says"


@dataclass(frozen=True)
class Unreachable:
    """A request finds nobody."""


class FakePreceptor:
    """The judge and the rewrite service at one address. May be shared by threads and by event loops.

    `axes` are those it has rubrics for; a request may name any other rubric. With an `api_key` it wants that key. A
    request whose deadline is shorter than `judging_s` fails as a whole; no time really passes.
    """

    def __init__(
        self,
        score: Score = score_by_hash,
        rewrite: Rewrite = copied,
        *,
        axes: tuple[str, ...] = tuple(Axis),
        api_key: str | None = None,
        ready: bool = True,
        judging_s: float = 0.01,
        max_body_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        teacher = FakeTeacher(score, rewrite, axes, judging_s)
        self.judged = teacher.judged
        """Requests that were judged, in order; replays are not among them."""
        self.rewritten = teacher.rewritten
        """Requests that were rewritten, in order."""
        self.requests: list[httpx.Request] = []
        """Everything that came, in order."""
        self.ready = ready
        self.transport = httpx.MockTransport(self._handle)
        """For an httpx client of your own, sync or async."""
        self._teacher = teacher
        self._axes = axes
        self._api_key = api_key
        self._max_body_bytes = max_body_bytes
        self._script: deque[Refusal | Unreachable] = deque()
        self._replays: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._batches = FakeBatches(teacher.judge)
        self._lock = threading.RLock()

    def client(self, **settings: object) -> PreceptorClient:
        """A client of the SDK that talks to this fake. `settings` are fields of `ClientSettings`."""
        return PreceptorClient(settings=self.settings(**settings), transport=self.transport)

    def async_client(self, **settings: object) -> AsyncPreceptorClient:
        """As `client`, for an event loop."""
        return AsyncPreceptorClient(settings=self.settings(**settings), transport=self.transport)

    def settings(self, **settings: object) -> ClientSettings:
        """Settings of a client of this fake: its address and key, and retries without a pause."""
        own = {"judge_url": URL, "rewrite_url": URL, "api_key": self._api_key, "backoff_s": 0.0}
        return ClientSettings.model_validate({**own, **settings})

    def serve(self) -> AbstractContextManager[str]:
        """A real HTTP server on loopback, for what cannot take a client: its URL, as long as the `with` lasts."""
        return serving(self._handle)

    def script(self, *steps: Refusal | Unreachable) -> None:
        """What happens to the next requests, one step each; after that they are answered."""
        with self._lock:
            self._script.extend(steps)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            given = request.headers.get("X-Request-Id", "")
            request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
            try:
                step = self._script.popleft() if self._script and request.method == "POST" else None
                if isinstance(step, Unreachable):
                    raise httpx.ConnectError("as the test's script says", request=request)
                if step is not None:
                    raise ProblemError(step.status, step.detail, step.retry_after_s)
                response = self._route(request)
            except ProblemError as problem:
                return problem.response(request_id)
            response.headers["X-Request-ID"] = request_id
            return response

    def _route(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/healthz":
            return _answer(request, "GET", Health(status="ok"))
        if path == "/readyz":
            health = Health(status="ok" if self.ready else "starting")
            return _answer(request, "GET", health, status=200 if self.ready else 503)
        self._admit(request)
        match path.removeprefix(f"/{API_VERSION}/").split("/"):
            case ["judge"]:
                return _answer(request, "POST", lambda: self._once(request, JudgeRequest, self._teacher.judge))
            case ["rewrite"]:
                return _answer(request, "POST", lambda: self._once(request, RewriteRequest, self._teacher.repair))
            case ["rubrics"]:
                return _answer(request, "GET", RubricList(rubrics=tuple(map(rubric_info, self._axes))))
            case ["batches"]:
                submit = self._batches.submit
                return _answer(request, "POST", lambda: submit(decoded(request.content, BatchRequest)), status=202)
            case ["batches", batch_id]:
                return _answer(request, "GET", lambda: self._batches.status(batch_id))
            case ["batches", batch_id, "cancel"]:
                return _answer(request, "POST", lambda: self._batches.status(batch_id))
            case ["batches", batch_id, "results"]:
                after = number_of(request.url.params.get("after"), "after")
                return _answer(
                    request, "GET", lambda: self._batches.lines(batch_id, after), kind="application/x-ndjson"
                )
            case ["batches", batch_id, "events"]:
                after = number_of(request.headers.get("Last-Event-ID"), "last-event-id")
                return _answer(request, "GET", lambda: self._batches.events(batch_id, after), kind="text/event-stream")
        raise ProblemError(404, "Not Found")

    def _admit(self, request: httpx.Request) -> None:
        """Raises ProblemError for a request without the key, or one too large."""
        given = (request.headers.get("Authorization", "").removeprefix("Bearer "), request.headers.get("X-API-Key"))
        if self._api_key is not None and self._api_key not in given:
            how = "send Authorization: Bearer KEY, or X-API-Key: KEY"
            raise ProblemError(401, f"this service needs an API key: {how}")
        if len(request.content) > self._max_body_bytes:
            raise ProblemError(413, f"the body is larger than this service's limit of {self._max_body_bytes} bytes")

    def _once(self, request: httpx.Request, model: type[RequestT], work: Callable[[RequestT], Message]) -> bytes:
        """The answer to a request; the earlier one if its key came before. Failed answers are not kept."""
        message = decoded(request.content, model)
        if not self.ready:
            raise ProblemError(503, "the teacher has not answered yet", retry_after_s=2)
        key = (request.url.path, request.headers.get("Idempotency-Key", ""))
        fingerprint = message.model_dump_json().encode()
        if key[1] and key in self._replays:
            known, answer = self._replays[key]
            if known != fingerprint:
                raise ProblemError(
                    422, f"Idempotency-Key {key[1]!r} came with a different request before: use a new key"
                )
            return answer
        response = work(message)
        answer = response.model_dump_json().encode()
        if key[1] and not failed(response):
            self._replays[key] = fingerprint, answer
        return answer


def _answer(
    request: httpx.Request,
    method: str,
    work: Message | Callable[[], Message | bytes],
    *,
    status: int = 200,
    kind: str = "application/json",
) -> httpx.Response:
    """The answer to a request with this method."""
    if request.method != method:
        raise ProblemError(405, "Method Not Allowed")
    answer = work() if callable(work) else work
    content = answer if isinstance(answer, bytes) else answer.model_dump_json().encode()
    return httpx.Response(status, content=content, headers={"Content-Type": kind})
