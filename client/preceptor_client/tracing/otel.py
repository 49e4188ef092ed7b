"""Spans by OpenTelemetry: what `spans` says, told to a tracer provider. Imported only by a process that traces.

In: a provider of the OpenTelemetry API. Out: a `Tracer`. Guarantees: a `traceparent` that is none is as good as absent;
a clock that is ahead of ours makes no span of negative length.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from preceptor_client.tracing.spans import About, Kind, Span

_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS: dict[Kind, trace.SpanKind] = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}


class OtelTracer:
    """Records by `provider`: the one that a program has set up, or that of `otlp`."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("preceptor")

    def begin(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Iterable[str | None],
        since_s: float | None,
        about: About,
    ) -> Span:
        """A span that has begun."""
        since = None if since_s is None else min(_ns(since_s), time.time_ns())
        span = self._tracer.start_span(
            name,
            None if parent is None else _read(parent),
            _KINDS[kind],
            _named(about),
            [trace.Link(found) for link in links if (found := _linked(link)) is not None],
            since,
        )
        return _Recorded(span)

    def traceparent(self) -> str | None:
        """Of the current span."""
        return _write(trace.get_current_span())


class _Recorded(Span):
    """A span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Token[Any] | None = None
        self.traceparent = _write(span)

    def set(self, about: About) -> None:
        self._span.set_attributes(_named(about))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def link(self, traceparent: str | None) -> None:
        if (found := _linked(traceparent)) is not None:
            self._span.add_link(found)

    def fail(self, why: str) -> None:
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, why))

    def end(self, at_s: float | None = None) -> None:
        self._span.end(None if at_s is None else _ns(at_s))

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            context.detach(self._token)
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self.set({"cancelled": True})
        elif kind is not None:
            self.fail(kind.__name__)
        self.end()


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _named(about: About) -> dict[str, AttributeValue]:
    return {name if "." in name else f"preceptor.{name}": value for name, value in about.items() if value is not None}


def _read(traceparent: str) -> context.Context:
    """A context of its own: what is current here has no part in it."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, context.Context())


def _linked(traceparent: str | None) -> trace.SpanContext | None:
    """What a link points at; None if it is not recorded, so that there is nothing to be seen there."""
    if traceparent is None:
        return None
    found = trace.get_current_span(_read(traceparent)).get_span_context()
    return found if found.is_valid and found.trace_flags.sampled else None


def _write(span: trace.Span) -> str | None:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, context.Context()))
    return carrier.get("traceparent")
