"""What all messages share: the strict base model, the bounds of texts and names, cost, health and problems. No I/O."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

API_VERSION = "v1"

MAX_TEXT_CHARS = 65_536
"""Longest prefix, suffix or candidate. A 2,048-token window of English is about 8,000 characters."""
MAX_CANDIDATES = 64
MAX_VOTES = 64

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$")]
AxisName = Annotated[str, Field(max_length=32, pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Deadline = Annotated[float, Field(strict=True, gt=0, le=3600)]

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def as_traceparent(text: str | None) -> str | None:
    """`text` if it is a traceparent as W3C Trace Context has it (version 00), else None: work is not refused for it."""
    return text if text and _TRACEPARENT.fullmatch(text) else None


TraceParent = Annotated[str | None, AfterValidator(as_traceparent)]
"""Where in a trace this belongs; None if it is not traced."""


class Message(BaseModel):
    """Base of every message: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Usage(Message):
    """What it cost."""

    calls: Count = 0
    """Questions put to the teacher (one per prompt, however many votes)."""
    cached: Count = 0
    """Questions answered from the verdict cache instead; they cost no tokens."""
    prompt_tokens: Count = 0
    completion_tokens: Count = 0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Health(Message):
    """The answer of `/healthz` and `/readyz`."""

    status: Literal["ok", "starting", "unavailable"]
    detail: str | None = None


class Problem(BaseModel):
    """An error, as `application/problem+json` (RFC 9457)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = None
