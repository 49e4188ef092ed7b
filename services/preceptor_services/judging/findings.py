"""From what was read to what is found of each candidate. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from preceptor_client.contract import Comparison, Status, Verdict, Votes
from preceptor_services.parsing import OrderReading, Reading


@dataclass(frozen=True)
class Heard:
    """What was read in the answers to one question: a reading per vote, or the error that left it without any."""

    readings: tuple[Reading, ...] = ()
    orders: tuple[OrderReading, ...] = ()
    """Of rankings, in the place of readings."""
    error: str | None = None

    @cached_property
    def readable(self) -> bool:
        """Whether any vote names a verdict."""
        return any(r.label is not None for r in self.readings) or any(o.order is not None for o in self.orders)

    @cached_property
    def labels(self) -> list[str]:
        """The readable votes."""
        return [reading.label for reading in self.readings if reading.label is not None]

    @cached_property
    def unreadable(self) -> int:
        """Votes that name no verdict."""
        return sum(r.label is None for r in self.readings) + sum(o.order is None for o in self.orders)

    @cached_property
    def rationale(self) -> str | None:
        """The first reason given with a verdict."""
        given = [r.rationale for r in self.readings if r.label] + [o.rationale for o in self.orders if o.order]
        return next((rationale for rationale in given if rationale), None)


@dataclass(frozen=True)
class Finding:
    """What the answers say of one candidate on one axis; `error` is one call's, of those that failed."""

    score: float | None
    votes: Votes
    error: str | None = None
    rationale: str | None = None


@dataclass(frozen=True)
class Judgement:
    """One axis of one cohort: a finding per distinct text."""

    findings: list[Finding]
    position_consistency: float | None = None
    position_bias: float | None = None
    comparisons: Callable[[], Sequence[Comparison]] = tuple
    """Every comparison, made when somebody asks for them."""


def first_error(heard: Iterable[Heard]) -> str | None:
    """One of the errors, if any call failed."""
    return next((one.error for one in heard if one.error is not None), None)


def verdict_of(candidate_id: str, axis: str, finding: Finding, *, detail: bool) -> Verdict:
    """The finding as a typed verdict: without a score, `failed` if any call failed, since asking again may help."""
    if finding.score is not None:
        status, reason = Status.OK, None
    elif finding.votes.failed:
        status, reason = Status.FAILED, finding.error
    else:
        status, reason = Status.ABSTAINED, "no answer names a verdict"
    return Verdict(
        candidate_id=candidate_id,
        axis=axis,
        status=status,
        score=finding.score,
        votes=finding.votes,
        reason=reason,
        rationale=finding.rationale if detail else None,
    )
