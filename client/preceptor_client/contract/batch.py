"""Batches: many judge requests handed over at once, judged as the teacher has room, read back in any order of time.

A batch survives restarts of the service. Every item ends in exactly one `BatchResult`; results are numbered in the
order in which they became ready, and name the place of their item in the batch. No I/O.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from preceptor_client.contract.base import Count, Identifier, Message, Problem
from preceptor_client.contract.judging import JudgeRequest, JudgeResponse

MAX_BATCH_ITEMS = 10_000


class BatchState(StrEnum):
    """Where a batch is."""

    RUNNING = "running"
    DONE = "done"
    """Every item has its result."""
    CANCELLED = "cancelled"
    """It was stopped: items without a result get none."""


class BatchRequest(Message):
    """Judge all `items`. The same `id` again continues the batch that is there, if its items are the same."""

    id: Identifier | None = None
    """Chosen by the caller, so that a submission whose answer was lost can be repeated; else the service names it."""
    items: Annotated[tuple[JudgeRequest, ...], Field(min_length=1, max_length=MAX_BATCH_ITEMS)]


class Batch(Message):
    """A batch as it stands."""

    id: Identifier
    state: BatchState
    total: Count
    done: Count
    """Items with a result, `failed` ones among them."""
    failed: Count
    """Items whose result is a problem."""
    created_at: AwareDatetime
    expires_at: AwareDatetime
    """When the service forgets it, with its results."""


class BatchResult(Message):
    """What became of one item: a response, or the problem that kept it from being judged."""

    index: Count
    """The item's place in the batch, from 0."""
    response: JudgeResponse | None = None
    problem: Problem | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.response is None) == (self.problem is None):
            raise ValueError("a result has either a response or a problem")
        return self
