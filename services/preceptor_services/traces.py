"""What the services tell of a cohort's story: names and attributes of their spans in one place.

In: requests, deliveries, responses. Out: spans for blocks; nothing where the process does not trace. Guarantees: only
counts, names and statuses, no texts; a verdict that failed is an attribute and the span's status, no exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from preceptor_client import tracing
from preceptor_client.contract import JudgeRequest, JudgeResponse, Status
from preceptor_client.contract.base import as_traceparent
from preceptor_client.queue import Delivery
from preceptor_services.settings import JudgingSettings


def delivered(delivery: Delivery) -> AbstractContextManager[tracing.Span]:
    """For the block in which a worker deals with a task; how long this was in the stream is told beside it."""
    task = delivery.task
    about: tracing.About = {"run": task.run, "cohort": task.request.cohort.id, "attempt": delivery.attempt}
    tracing.record("queue wait", about, parent=task.trace, since_s=delivery.submitted_at_s)
    return tracing.span("delivery", about, kind="consumer", parent=task.trace)


@contextmanager
def judging(request: JudgeRequest, settings: JudgingSettings) -> Iterator[Callable[[JudgeResponse], JudgeResponse]]:
    """For the block in which a judge works on a cohort, which passes its response through."""
    about: tracing.About = {
        "cohort": request.cohort.id,
        "candidates": len(request.cohort.candidates),
        "axes": request.axes,
        "schedule": (request.schedule or settings.schedule).value,
    }
    with tracing.span("judge cohort", about) as span:

        def judged(response: JudgeResponse) -> JudgeResponse:
            if tracing.is_on():
                usage, statuses = response.usage, Counter(verdict.status for verdict in response.verdicts)
                span.set({"calls": usage.calls, "cached": usage.cached, "tokens": usage.tokens})
                span.set({f"verdicts_{status.value}": statuses[status] for status in Status})
                if statuses[Status.FAILED]:
                    span.fail("verdicts failed")
            return response

        yield judged


def requested(method: str, headers: Mapping[bytes, bytes]) -> AbstractContextManager[tracing.Span]:
    """For the block in which an HTTP request is answered."""
    given = as_traceparent(headers.get(b"traceparent", b"").decode("latin-1"))
    return tracing.span(method, {"http.request.method": method}, kind="server", parent=given)


def answered(span: tracing.Span, method: str, route: str, status: int) -> None:
    """The request was answered."""
    span.rename(f"{method} {route}")
    span.set({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.fail(str(status))
