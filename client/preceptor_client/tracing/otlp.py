"""Where the spans of a process go: to a collector, by OTLP over HTTP. Imported only by a process that traces.

In: `TracingSettings` and, for what they leave out, OpenTelemetry's environment variables. Out: a provider, for a block,
at whose end what is left is sent. A thread of its own sends, in batches: nothing waits for the collector but the end of
the block, for `_FAREWELL_S` at most, and spans that it does not take are dropped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from preceptor_client.tracing.settings import TracingSettings

_FAREWELL_S = 5.0


@contextmanager
def exporting(settings: TracingSettings, service: str) -> Iterator[TracerProvider]:
    """A provider that sends to the collector; `OTEL_SERVICE_NAME` is another name for `service`."""
    named = {} if os.environ.get(OTEL_SERVICE_NAME) else {SERVICE_NAME: service}
    sampler = None if settings.sample is None else ParentBased(CohortsAndTheirUpdates(settings.sample))
    provider = TracerProvider(sampler, Resource.create(named), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider
    finally:
        giving_up = threading.Timer(_FAREWELL_S, exporter.shutdown)
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()


class CohortsAndTheirUpdates(Sampler):
    """A share of the stories. One that begins with links to others, as an update's does, is told as they are."""

    def __init__(self, share: float) -> None:
        self._by_share = TraceIdRatioBased(share)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Whether a story that begins is told."""
        by = ALWAYS_ON if links else self._by_share
        return by.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """As OpenTelemetry shows it."""
        return f"CohortsAndTheirUpdates{{{self._by_share.rate}}}"
