"""Rewriting: what is asked of the rewriter, and what it answers. No I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from preceptor_client.contract.base import MAX_TEXT_CHARS, Count, Deadline, Message, Share, Text, Usage
from preceptor_client.contract.judging import Provenance

MAX_SAMPLES = 16


class RewriteOutcome(StrEnum):
    """What the teacher did with a suffix."""

    REWRITTEN = "rewritten"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """No sample is usable: it declined, talked about the task, or strayed in length or content; `rewrite` is None."""
    FAILED = "failed"
    """The teacher did not answer; `rewrite` is None."""


class RewriteRequest(Message):
    """Copy `suffix` if it is a good continuation of `prefix`, repair it at about the same length otherwise."""

    prefix: Text
    suffix: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=8192)] | None = None
    """Bound on the rewrite, in teacher tokens; the service's own bound if left out."""
    samples: Annotated[int, Field(strict=True, ge=1, le=MAX_SAMPLES)] | None = None
    """Rewrites drawn; of several that are usable, the judge's best is the answer."""
    deadline_s: Deadline | None = None


class RewriteChecks(Message):
    """What was measured of a rewrite against the suffix it replaces."""

    length_ratio: Annotated[float, Field(ge=0)]
    """Words of the rewrite over words of the suffix."""
    kept: Share
    """Share of the suffix's words that the rewrite keeps, in order."""


class RewriteResponse(Message):
    """`rewrite` is a text if and only if the outcome is `rewritten` or `unchanged`."""

    outcome: RewriteOutcome
    rewrite: str | None
    provenance: Provenance
    usage: Usage
    checks: RewriteChecks | None = None
    """Of the text in `rewrite`."""
    score: Share | None = None
    """The judge's score of `rewrite` among several usable samples; `reason` says why it is missing."""
    usable: Count = 0
    """Different texts among the samples that passed all checks."""
    reason: str | None = None

    @property
    def unchanged(self) -> bool:
        """The teacher kept the suffix word for word."""
        return self.outcome is RewriteOutcome.UNCHANGED

    @property
    def final(self) -> bool:
        """Whether asking again could bring nothing better: the teacher answered."""
        return self.outcome is not RewriteOutcome.FAILED

    @model_validator(mode="after")
    def _text_goes_with_outcome(self) -> Self:
        has_text = self.outcome in (RewriteOutcome.REWRITTEN, RewriteOutcome.UNCHANGED)
        if has_text != (self.rewrite is not None):
            raise ValueError("a rewrite has a text if and only if its outcome is rewritten or unchanged")
        return self
