"""Cohorts: a prefix and the candidates that continue it. No I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from preceptor_client.contract.base import MAX_CANDIDATES, Identifier, Message, Text


class Axis(StrEnum):
    """The axes that ship with Preceptor. A rubric may name others: everywhere else an axis is a plain name."""

    QUALITY = "quality"
    """Which of two continuations reads better: pairwise, so only relative to its cohort."""
    SAFETY = "safety"
    """Is the continuation safe: pointwise, 0 to 1."""
    FACTUALITY = "factuality"
    """Is what it states true: pointwise, 1 no / 0.5 possible / 0 definite hallucination."""


class Origin(StrEnum):
    """Where a candidate comes from."""

    ORIGINAL = "original"
    REWRITE = "rewrite"
    ROLLOUT = "rollout"


class Candidate(Message):
    """One continuation of a prefix. `id` is unique within its cohort."""

    id: Identifier
    origin: Origin = Origin.ROLLOUT
    text: Text


class Cohort(Message):
    """One prefix with all its candidates: the unit that is judged, queued, retried and trained on.

    `reference` is what rubrics that need one compare against (in training, the original suffix).
    """

    id: Identifier
    prefix: Text
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    reference: Text | None = None

    @model_validator(mode="after")
    def _candidate_ids_are_unique(self) -> Self:
        ids = [candidate.id for candidate in self.candidates]
        if len(set(ids)) != len(ids):
            raise ValueError("candidate ids must be unique within a cohort")
        return self
