"""A process that traces for as long as it runs, if its settings say so.

Waits at the end for the last spans to be sent, five seconds if the collector is away. Raises `TracingUnavailable` at
once if OpenTelemetry is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from preceptor_client.tracing.settings import TracingSettings
from preceptor_client.tracing.spans import use


class TracingUnavailable(RuntimeError):
    """The settings ask for traces that this installation cannot record; the text says what to do."""


@contextmanager
def running(settings: TracingSettings, service: str) -> Iterator[None]:
    """Record and send spans as those of `service` while the block runs; what is recorded without this goes on if
    `settings` do not ask for it."""
    if not settings.on:
        yield
        return
    try:
        from preceptor_client.tracing.otel import OtelTracer
        from preceptor_client.tracing.otlp import exporting
    except ImportError as error:
        raise TracingUnavailable(
            f"tracing is on, and {error.name} is not installed: pip install 'preceptor[tracing]', or set "
            "tracing.enabled=false"
        ) from None
    with exporting(settings, service) as provider:
        before = use(OtelTracer(provider))
        try:
            yield
        finally:
            use(before)
