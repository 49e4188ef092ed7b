"""Calls without their transport: what to send, whether to send it again, what an answer means. Pure, but for the clock.

In: contract messages and what came of an attempt (an httpx response or transport error). Out: the arguments of the HTTP
request, the seconds to wait before the next attempt, and the decoded message or a typed error. The sync and the async
client are both a loop of a few lines around a `Call`.

All endpoints are idempotent: what makes work carries an `Idempotency-Key`, by default made from its content, or an id
of its own, so an attempt whose answer was lost is repeated without judging twice. What is to be judged anew
(`cache: bypass`) has a key of its own in every call. Repeated is what may pass by itself: connection errors, 502, 503,
504, and 429 if the service says when to come back (`Retry-After`). A read time-out is not: the time is up.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from preceptor_client import tracing
from preceptor_client.config import describe
from preceptor_client.contract import (
    API_VERSION,
    Axis,
    Candidate,
    Cohort,
    Health,
    JudgeRequest,
    JudgeResponse,
    Message,
    Problem,
    RewriteRequest,
    RewriteResponse,
    RubricList,
    RubricSpec,
    Sampling,
)
from preceptor_client.errors import (
    PreceptorError,
    ServiceUnreachableError,
    UnexpectedResponseError,
    status_error,
)
from preceptor_client.masking import shown
from preceptor_client.settings import ClientSettings

AnswerT = TypeVar("AnswerT", bound=BaseModel)
Outcome = httpx.Response | httpx.TransportError
Service = Literal["judge", "rewrite"]

ALL_AXES: tuple[str, ...] = (Axis.QUALITY, Axis.SAFETY, Axis.FACTUALITY)
_RETRIED_STATUSES = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Call(Generic[AnswerT]):
    """One request of a caller, over as many attempts as it takes."""

    url: str
    message: Message | None
    answer: type[AnswerT]
    settings: ClientSettings
    idempotency_key: str | None = None
    method: Literal["GET", "POST"] = "POST"
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `httpx.Client.request`."""
        headers = {"X-Request-Id": self.request_id, **authorization(self.settings), **tracing.headers()}
        content = None
        if self.message is not None:
            headers["Content-Type"] = "application/json"
            content = self.message.model_dump_json(exclude_none=True).encode()
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        deadline_s = getattr(self.message, "deadline_s", None)
        read_s = self.settings.read_timeout_s if deadline_s is None else deadline_s + self.settings.deadline_margin_s
        return {
            "method": self.method,
            "url": self.url,
            "content": content,
            "headers": headers,
            "timeout": httpx.Timeout(read_s, connect=self.settings.connect_timeout_s, pool=None),
        }

    def delay_after(self, attempt: int, outcome: Outcome) -> float | None:
        """Seconds to wait after the failed `attempt` (the first is 1) before the next; None if there is to be none."""
        if attempt > self.settings.retries or not _may_pass_by_itself(outcome):
            return None
        asked = _retry_after_s(outcome) if isinstance(outcome, httpx.Response) else None
        if asked is not None:
            return asked if asked <= self.settings.retry_after_max_s else None
        ceiling = min(self.settings.backoff_max_s, self.settings.backoff_s * 2.0 ** (attempt - 1))
        return ceiling * random.uniform(0.5, 1.0)  # callers that failed together must not come back together

    def result(self, outcome: Outcome) -> AnswerT:
        """The decoded answer. Raises a `PreceptorError`."""
        if isinstance(outcome, httpx.TransportError):
            what = "no answer in time" if isinstance(outcome, httpx.TimeoutException) else "cannot be reached"
            reason = f"{shown(self.url)}: {what}: {outcome or type(outcome).__name__}"
            raise ServiceUnreachableError(reason, request_id=self.request_id) from outcome
        request_id = outcome.headers.get("X-Request-Id", self.request_id)
        if not outcome.is_success:
            raise status_error(_problem(outcome), request_id=request_id)
        try:
            answer = self.answer.model_validate_json(outcome.content)
        except ValidationError as error:
            raise self._unexpected(f"the answer does not follow the contract:\n{describe(error)}", request_id) from None
        if (
            isinstance(answer, JudgeResponse)
            and isinstance(self.message, JudgeRequest)
            and answer.cohort_id != self.message.cohort.id
        ):
            raise self._unexpected(f"the answer is for cohort {answer.cohort_id!r}", request_id)
        return answer

    def _unexpected(self, what: str, request_id: str) -> PreceptorError:
        return UnexpectedResponseError(f"{shown(self.url)}: {what}", request_id=request_id)


def judge_call(request: JudgeRequest, settings: ClientSettings, key: str | None) -> Call[JudgeResponse]:
    """The call that judges a cohort."""
    content = uuid.uuid4().hex if request.cache == "bypass" else content_hash(request)
    key = key or f"{request.cohort.id[:64]}:{content}"  # services take 128 characters
    return Call(endpoint(settings, "judge") + f"/{API_VERSION}/judge", request, JudgeResponse, settings, key)


def rewrite_call(request: RewriteRequest, settings: ClientSettings, key: str | None) -> Call[RewriteResponse]:
    """The call that rewrites a suffix."""
    key = key or content_hash(request)
    return Call(endpoint(settings, "rewrite") + f"/{API_VERSION}/rewrite", request, RewriteResponse, settings, key)


def rubrics_call(settings: ClientSettings) -> Call[RubricList]:
    """The call that lists what the judge can be asked for."""
    return Call(endpoint(settings, "judge") + f"/{API_VERSION}/rubrics", None, RubricList, settings, method="GET")


def judge_texts_request(
    prefix: str,
    texts: Sequence[str],
    *,
    axes: Sequence[str] | None = None,
    rubrics: Sequence[RubricSpec] = (),
    reference: str | None = None,
    sampling: Sampling | None = None,
    deadline_s: float | None = None,
) -> JudgeRequest:
    """A request for plain texts: candidate `c0` is the first text, and the cohort's id comes from the content. They are
    judged on `axes` and those of `rubrics`, on all three if neither is given.
    """
    candidates = tuple(Candidate(id=f"c{index}", text=text) for index, text in enumerate(texts))
    unnamed = Cohort(id="unnamed", prefix=prefix, candidates=candidates, reference=reference)
    cohort = unnamed.model_copy(update={"id": content_hash(unnamed)})
    specs = {spec.axis: spec for spec in rubrics}
    asked = axes_asked(axes, specs)
    return JudgeRequest(cohort=cohort, axes=asked, rubrics=specs, sampling=sampling, deadline_s=deadline_s)


def axes_asked(axes: Sequence[str] | None, brought: Iterable[str]) -> tuple[str, ...]:
    """Those that are named and those of the rubrics that are brought; all three if there are none."""
    return tuple(dict.fromkeys((*(axes or ()), *brought))) or ALL_AXES


def content_hash(message: BaseModel) -> str:
    """32 hexadecimal digits that equal content has in common."""
    return hashlib.sha256(message.model_dump_json().encode()).hexdigest()[:32]


def endpoint(settings: ClientSettings, service: Service) -> str:
    """A service's base URL."""
    return (settings.judge_url if service == "judge" else settings.rewrite_url).rstrip("/")


def authorization(settings: ClientSettings) -> dict[str, str]:
    """The header that carries the API key, if there is one."""
    key = settings.api_key
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def health_of(outcome: Outcome) -> Health:
    """What `/readyz` says; a service that does not answer is unavailable."""
    if isinstance(outcome, httpx.TransportError):
        return Health(status="unavailable", detail=str(outcome) or type(outcome).__name__)
    try:
        return Health.model_validate_json(outcome.content)
    except ValidationError:
        return Health(
            status="unavailable",
            detail=f"{shown(str(outcome.url))} answered {outcome.status_code}, not a health report",
        )


def http_settings(settings: ClientSettings) -> dict[str, Any]:
    """Keyword arguments of `httpx.Client` and `httpx.AsyncClient`. Proxies are not asked about this machine."""
    hosts = {httpx.URL(url).host for url in (settings.judge_url, settings.rewrite_url)}
    return {
        "limits": httpx.Limits(
            max_connections=settings.max_connections, max_keepalive_connections=settings.max_connections
        ),
        "trust_env": not hosts <= {"127.0.0.1", "localhost", "::1"},
    }


def _may_pass_by_itself(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _RETRIED_STATUSES or (
            outcome.status_code == 429 and _retry_after_s(outcome) is not None
        )
    return isinstance(outcome, httpx.NetworkError | httpx.ConnectTimeout | httpx.RemoteProtocolError)


def _retry_after_s(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds from now: a number, or a date (RFC 9110, 10.2.3). None if absent or unreadable."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        title = response.reason_phrase or "error"
        return Problem(title=title, status=response.status_code, detail=response.text[:500] or None)
