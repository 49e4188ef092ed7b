"""Spans recorded in memory, and questions about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from preceptor_client import tracing
from preceptor_client.tracing.otel import OtelTracer


@dataclass(frozen=True)
class Recorded:
    """What has ended so far."""

    exporter: InMemorySpanExporter

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def trace(self, trace_id: int) -> list[ReadableSpan]:
        return [span for span in self.all if span.context.trace_id == trace_id]


@contextmanager
def recording(sampler: Sampler | None = None) -> Iterator[Recorded]:
    """This process traces into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = tracing.use(OtelTracer(provider))
    try:
        yield Recorded(exporter)
    finally:
        tracing.use(before)


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent and span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    return int(span.context.span_id)


def traceparent_of(span: ReadableSpan) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def about(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(f"preceptor.{name}")


def said(spans: list[ReadableSpan]) -> str:
    """All that spans hold, as text."""
    return "\n".join(span.to_json() for span in spans)
