"""From verdicts on several axes to one score: weights, and gates that no weight can buy off. No I/O.

A gate that a candidate fails takes away what it guards: the contribution of the axes in `guards`, or the whole
composite when it names none. So a text that is safe because it says nothing, or liked because it repeats itself,
cannot win.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from preceptor_client.contract.base import AxisName, Identifier, Message, Share

Weight = Annotated[float, Field(gt=0, le=1_000)]
Weights = Annotated[dict[AxisName, Weight], Field(min_length=1, max_length=16)]
Guards = Annotated[tuple[AxisName, ...], Field(max_length=16)]


class AxisGate(Message):
    """The candidate's score on `axis` must be at least `minimum`."""

    kind: Literal["axis"] = "axis"
    axis: AxisName
    minimum: Share
    guards: Guards = ()


class LengthGate(Message):
    """The candidate's length in words must lie within bounds, absolute or relative to the reference (without one, to
    the candidate of origin `original`). A relative bound without anything to compare with holds."""

    kind: Literal["length"] = "length"
    min_words: Annotated[int, Field(ge=0)] = 0
    max_words: Annotated[int, Field(ge=1)] | None = None
    min_ratio: Annotated[float, Field(ge=0)] = 0.0
    max_ratio: Annotated[float, Field(gt=0)] | None = None
    guards: Guards = ()

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError("max_words is below min_words")
        if self.max_ratio is not None and self.max_ratio < self.min_ratio:
            raise ValueError("max_ratio is below min_ratio")
        return self


class RepetitionGate(Message):
    """At most `max_share` of the candidate may stand in an n-gram of `ngram` words that occurred before, in the
    candidate itself or, with `prefix`, in what it continues. A text said twice over is half repetition."""

    kind: Literal["repetition"] = "repetition"
    ngram: Annotated[int, Field(ge=1, le=16)] = 4
    max_share: Share = 0.4
    prefix: bool = False
    guards: Guards = ()


class CopyGate(Message):
    """At most `max_share` of the candidate may stand in an n-gram of `ngram` words that the prefix holds too."""

    kind: Literal["copy"] = "copy"
    ngram: Annotated[int, Field(ge=1, le=64)] = 8
    max_share: Share = 0.5
    guards: Guards = ()


Gate = Annotated[AxisGate | LengthGate | RepetitionGate | CopyGate, Field(discriminator="kind")]
Gates = Annotated[tuple[Gate, ...], Field(max_length=16)]


def check_guards(gates: Iterable[Gate], weights: Mapping[str, float]) -> None:
    """Raises ValueError if a gate guards an axis that does not count."""
    for gate in gates:
        if unknown := [axis for axis in gate.guards if axis not in weights]:
            raise ValueError(f"a {gate.kind} gate guards {', '.join(unknown)}, which has no weight")


class Composition(Message):
    """One score from several axes: the weighted mean of what the gates let count."""

    weights: Weights
    gates: Gates = ()

    @model_validator(mode="after")
    def _gates_guard_what_counts(self) -> Self:
        check_guards(self.gates, self.weights)
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis it needs a score on."""
        gated = (gate.axis for gate in self.gates if isinstance(gate, AxisGate))
        return tuple(dict.fromkeys((*self.weights, *gated)))


class Composite(Message):
    """One candidate's composite score in [0, 1]; None, with the reason, unless every axis it needs has a score."""

    candidate_id: Identifier
    score: Share | None
    failed_gates: tuple[str, ...] = ()
    """What it failed by, with what was measured: `repetition 0.71 > 0.4`, `quality 0.10 < 0.3`."""
    reason: str | None = None

    @model_validator(mode="after")
    def _reason_goes_without_score(self) -> Self:
        if (self.score is None) != (self.reason is not None):
            raise ValueError("a composite has a reason if and only if it has no score")
        return self
