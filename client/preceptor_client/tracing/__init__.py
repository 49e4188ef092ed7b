"""Traces: what became of a cohort, from its window to the update that it trained, over all processes.

    with tracing.running(settings, "preceptor-worker"):              the process traces, if it is told to
        with tracing.span("judge cohort", {"cohort": id}) as span:   a part of the story
            span.set({"calls": 12})

What all packages say goes through `spans`, which knows nothing of OpenTelemetry; `opentelemetry` is imported by
`otel` and `otlp` alone, and these only by a process that traces. Needs the extra `preceptor[tracing]` then. See
docs/tracing.md.
"""

from preceptor_client.tracing.running import TracingUnavailable, running
from preceptor_client.tracing.settings import TracingSettings
from preceptor_client.tracing.spans import (
    UNTRACED,
    About,
    Span,
    Tracer,
    begin,
    headers,
    is_on,
    record,
    shared,
    span,
    traceparent,
    use,
)

__all__ = [
    "UNTRACED",
    "About",
    "Span",
    "Tracer",
    "TracingSettings",
    "TracingUnavailable",
    "begin",
    "headers",
    "is_on",
    "record",
    "running",
    "shared",
    "span",
    "traceparent",
    "use",
]
