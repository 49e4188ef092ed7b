"""How a process traces: the section `tracing` of services and trainer. No I/O but a look at the environment."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from preceptor_client.masking import MaskedUrl


class TracingSettings(BaseModel):
    """Off by default. Whatever is not set here is read from OpenTelemetry's own variables, `OTEL_...`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool | None = None
    """Whether spans are recorded and sent; None: if the environment has `OTEL_TRACES_EXPORTER=otlp`."""
    endpoint: Annotated[MaskedUrl, Field(pattern=r"^https?://[^/]")] | None = None
    """Where the collector takes traces by OTLP over HTTP, whole: `http://collector:4318/v1/traces`."""
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the cohorts that are traced, each from its beginning to its end; None: all, or as `OTEL_TRACES_SAMPLER`
    says."""

    @property
    def on(self) -> bool:
        """Whether this process is to trace."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        if self.enabled is not None:
            return self.enabled
        return os.environ.get("OTEL_TRACES_EXPORTER", "").strip() == "otlp"
