"""A fake of the judge and rewrite services for your own tests: in this process, without a network, a GPU or FastAPI.

    fake = FakePreceptor(score=lambda axis, prefix, text: 1.0 if "please" in text else 0.0)
    with fake.client() as client:
        response = client.judge_texts("Pass the salt,", ["please.", "now."])
    fake.script(Refusal(503), Refusal(429, retry_after_s=0))     # what the next two requests get
    assert [request.axes for request in fake.judged]

In: a function that scores and one that rewrites; what the next requests are refused with. Out: the real clients of the
SDK, or an httpx transport. Guarantees: requests and answers follow the contract (errors are problem+json with a request
id and name the key, a repeated Idempotency-Key is answered again, a score goes with `ok` only), and the same request
always gets the same answer. Does no judging of its own: scores are what `score` says, and gates on a text itself
(length, repetition, copy) always hold. Waits for nothing.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import ValidationError

from preceptor_client.contract import (
    API_VERSION,
    Axis,
    AxisGate,
    AxisReport,
    Composite,
    Composition,
    Health,
    JudgeRequest,
    JudgeResponse,
    Message,
    Problem,
    Provenance,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    RubricSpec,
    Sampling,
    Status,
    Usage,
    Verdict,
    Votes,
)
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient
from preceptor_client.settings import ClientSettings

URL = "http://preceptor.test"
RequestT = TypeVar("RequestT", JudgeRequest, RewriteRequest)
Score = Callable[[str, str, str], float | Status]
"""`score(axis, prefix, text)`: the score of a candidate, or `Status.ABSTAINED` or `Status.FAILED` for none."""
Rewrite = Callable[[str, str], str | RewriteOutcome]
"""`rewrite(prefix, suffix)`: the rewrite, or `RewriteOutcome.REFUSED` or `RewriteOutcome.FAILED` for none."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_NONE = {Status.ABSTAINED: "no answer names a verdict", Status.FAILED: "the teacher did not answer"}


def score_by_hash(axis: str, prefix: str, text: str) -> float:
    """Some score in [0, 1], always the same for the same texts."""
    digest = hashlib.sha256("\0".join((axis, prefix, text)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def copied(prefix: str, suffix: str) -> str:
    """The suffix itself."""
    return suffix


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

    `axes` are those it has rubrics for. With an `api_key` it wants that key. A request whose deadline is shorter than
    `judging_s` fails as a whole; no time really passes.
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
        self.judged: list[JudgeRequest] = []
        """Requests that were judged, in order; replays are not among them."""
        self.rewritten: list[RewriteRequest] = []
        """Requests that were rewritten, in order."""
        self.requests: list[httpx.Request] = []
        """Everything that came, in order."""
        self.ready = ready
        self.transport = httpx.MockTransport(self._handle)
        """For an httpx client of your own, sync or async."""
        self._score = score
        self._rewrite = rewrite
        self._axes = axes
        self._api_key = api_key
        self._judging_s = judging_s
        self._max_body_bytes = max_body_bytes
        self._script: deque[Refusal | Unreachable] = deque()
        self._replays: dict[tuple[str, str], tuple[bytes, bytes]] = {}
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
                    raise _Problem(step.status, step.detail, step.retry_after_s)
                status, content = self._route(request)
            except _Problem as problem:
                return problem.response(request_id)
            headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
            return httpx.Response(status, content=content, headers=headers)

    def _route(self, request: httpx.Request) -> tuple[int, bytes]:
        routes = {
            "/healthz": "GET",
            "/readyz": "GET",
            f"/{API_VERSION}/judge": "POST",
            f"/{API_VERSION}/rewrite": "POST",
        }
        path = request.url.path
        if path not in routes:
            raise _Problem(404, "Not Found")
        if request.method != routes[path]:
            raise _Problem(405, "Method Not Allowed")
        if path == "/healthz":
            return 200, Health(status="ok").model_dump_json().encode()
        if path == "/readyz":
            health = Health(status="ok" if self.ready else "starting")
            return 200 if self.ready else 503, health.model_dump_json().encode()
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise _Problem(401, "this service wants an API key: send it as `Authorization: Bearer KEY`")
        if len(request.content) > self._max_body_bytes:
            raise _Problem(413, f"the body is larger than this service's limit of {self._max_body_bytes} bytes")
        if path.endswith("/judge"):
            return 200, self._once(request, JudgeRequest, self._judge)
        return 200, self._once(request, RewriteRequest, self._repair)

    def _once(self, request: httpx.Request, model: type[RequestT], work: Callable[[RequestT], Message]) -> bytes:
        """The answer to a request; the earlier one if its key came before. Failed answers are not kept."""
        message = _decoded(request.content, model)
        if not self.ready:
            raise _Problem(503, "the teacher has not answered yet", retry_after_s=2)
        key = (request.url.path, request.headers.get("Idempotency-Key", ""))
        fingerprint = message.model_dump_json().encode()
        if key[1] and key in self._replays:
            known, answer = self._replays[key]
            if known != fingerprint:
                raise _Problem(422, f"Idempotency-Key {key[1]!r} came with a different request before: use a new key")
            return answer
        response = work(message)
        answer = response.model_dump_json().encode()
        if key[1] and not _failed(response):
            self._replays[key] = fingerprint, answer
        return answer

    def _judge(self, request: JudgeRequest) -> JudgeResponse:
        known = {*self._axes, *(axis for axis, rubric in request.rubrics.items() if isinstance(rubric, RubricSpec))}
        for axis in request.axes:
            if axis not in known:
                raise _Problem(
                    422, f"axes: no rubric for {axis!r} in the set 'fake', which has {', '.join(self._axes)}"
                )
        self.judged.append(request)
        verdicts = {
            (axis, candidate.id): self._verdict(request, axis, candidate.id, candidate.text)
            for axis in request.axes
            for candidate in request.cohort.candidates
        }
        composites = []
        if request.composition is not None:
            for candidate in request.cohort.candidates:
                found = {axis: verdicts[axis, candidate.id].score for axis in request.axes}
                composites.append(composite(request.composition, candidate.id, found))
        return JudgeResponse(
            cohort_id=request.cohort.id,
            verdicts=tuple(verdicts.values()),
            axes={axis: self._report(request, axis) for axis in request.axes},
            composites=tuple(composites),
            elapsed_s=self._judging_s,
        )

    def _verdict(self, request: JudgeRequest, axis: str, candidate_id: str, text: str) -> Verdict:
        found: float | Status = self._score(axis, request.cohort.prefix, text)
        reason = None
        if request.deadline_s is not None and request.deadline_s < self._judging_s:
            found, reason = Status.FAILED, "the deadline passed before the teacher answered"
        if isinstance(found, Status):
            return Verdict(candidate_id=candidate_id, axis=axis, status=found, reason=reason or _NONE[found])
        return Verdict(
            candidate_id=candidate_id, axis=axis, status=Status.OK, score=found, votes=Votes(counts={"fake": 1})
        )

    def _report(self, request: JudgeRequest, axis: str) -> AxisReport:
        rubric = request.rubrics.get(axis)
        name = rubric if isinstance(rubric, str) else f"fake/{axis}"
        provenance = _provenance(name, request.sampling or Sampling())
        return AxisReport(provenance=provenance, usage=Usage(calls=len(request.cohort.candidates)))

    def _repair(self, request: RewriteRequest) -> RewriteResponse:
        self.rewritten.append(request)
        found = self._rewrite(request.prefix, request.suffix)
        if request.deadline_s is not None and request.deadline_s < self._judging_s:
            found = RewriteOutcome.FAILED
        text, reason = None, None
        if isinstance(found, RewriteOutcome):
            outcome, reason = found, f"the teacher {found}"
        else:
            outcome = RewriteOutcome.UNCHANGED if found == request.suffix else RewriteOutcome.REWRITTEN
            text = found
        provenance = _provenance("fake/rewrite", Sampling())
        return RewriteResponse(
            outcome=outcome, rewrite=text, provenance=provenance, usage=Usage(calls=1), reason=reason
        )


class _Problem(Exception):
    """An error to be answered as `application/problem+json`."""

    def __init__(self, status: int, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self._status = status
        self._detail = detail
        self._retry_after_s = retry_after_s

    def response(self, request_id: str) -> httpx.Response:
        title = HTTPStatus(self._status).phrase
        problem = Problem(title=title, status=self._status, detail=self._detail, request_id=request_id)
        headers = {"Content-Type": "application/problem+json", "X-Request-ID": request_id}
        if self._retry_after_s is not None:
            headers["Retry-After"] = f"{self._retry_after_s:g}"
        return httpx.Response(self._status, content=problem.model_dump_json().encode(), headers=headers)


def composite(composition: Composition, candidate_id: str, found: Mapping[str, float | None]) -> Composite:
    """The weighted mean of what the gates on axes let count; gates on the text hold."""
    scores = {axis: score for axis, score in found.items() if score is not None}
    if missing := [axis for axis in composition.axes if axis not in scores]:
        return Composite(candidate_id=candidate_id, score=None, reason=f"no score on {', '.join(missing)}")
    failed = [g for g in composition.gates if isinstance(g, AxisGate) and scores[g.axis] < g.minimum]
    lost = {axis for gate in failed for axis in gate.guards or composition.weights}
    counted = sum(weight * scores[axis] for axis, weight in composition.weights.items() if axis not in lost)
    return Composite(
        candidate_id=candidate_id,
        score=min(1.0, counted / sum(composition.weights.values())),
        failed_gates=tuple(f"{gate.axis} {scores[gate.axis]:g} < {gate.minimum:g}" for gate in failed),
    )


def _decoded(content: bytes, model: type[RequestT]) -> RequestT:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        problems = [(".".join(map(str, each["loc"])) or "body", each["msg"]) for each in error.errors()]
        raise _Problem(422, "; ".join(f"{key}: {what}" for key, what in problems)) from None


def _provenance(rubric: str, sampling: Sampling) -> Provenance:
    return Provenance(teacher="fake", revision="fake", rubric=rubric, rubric_hash="0" * 12, sampling=sampling)


def _failed(response: Message) -> bool:
    """Whether asking again may bring more."""
    if isinstance(response, JudgeResponse):
        return any(verdict.status is Status.FAILED for verdict in response.verdicts)
    return isinstance(response, RewriteResponse) and response.outcome is RewriteOutcome.FAILED
