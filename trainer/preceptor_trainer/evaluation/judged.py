"""One or two sides judged on the same windows or prompts: the questions, and what the answers come to. Pure.

In: a model's generations and perhaps its rival's for the same windows, then the judge's responses. Out:
`JudgeRequest`s, and an `Outcome` with an estimate per axis. Guarantees: pairs are shown in both orders; a verdict that
was abstained or failed is counted and left out, never read as a number; an axis looks only at windows on which every
side has a score, so its figures can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from preceptor_client.contract import (
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Order,
    Origin,
    Provenance,
    Status,
    Usage,
)
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.rubrics import Asked
from preceptor_trainer.evaluation.statistics import Estimate, mean, win_rate

_REASONS_SHOWN = 3

Side = Literal["model", "rival"]
SIDES: tuple[Side, Side] = ("model", "rival")
ORIGINAL = "the original suffix"
"""What the rival is called when no second model is."""


@dataclass(frozen=True)
class Pair:
    """What the sides wrote for one window. `rival` is the original suffix if no second model takes part; a prompt has
    no `original`, and so perhaps no rival."""

    prefix: str
    original: str | None
    model: str
    rival: str | None


def pairs(model: Sequence[Generation], rival: Sequence[Generation] | None, *, prompts: bool = False) -> list[Pair]:
    """The sides' texts, window by window. Without a `rival` the original suffixes, if there are any, do."""
    originals = [None if prompts else each.original for each in model]
    others = originals if rival is None else [each.text for each in rival]
    return [
        Pair(each.prefix, original, each.text, other)
        for each, original, other in zip(model, originals, others, strict=True)
    ]


def request(number: int, pair: Pair, asked: Asked, *, rival_origin: Origin = Origin.ROLLOUT) -> JudgeRequest:
    """The question about window `number`. Raises pydantic's ValidationError for what is beyond the contract."""
    candidates = [Candidate(id="model", text=pair.model)]
    if pair.rival is not None:
        candidates.append(Candidate(id="rival", origin=rival_origin, text=pair.rival))
    cohort = Cohort(id=f"window-{number}", prefix=pair.prefix, candidates=tuple(candidates), reference=pair.original)
    return JudgeRequest(cohort=cohort, axes=asked.axes, rubrics=dict(asked.rubrics), order=Order.BOTH)


@dataclass(frozen=True)
class AxisResult:
    """One axis: `scores[side]` has a score for each window on which every side has one, in the same order."""

    scores: Mapping[Side, Sequence[float]]

    @property
    def windows(self) -> int:
        """Windows that count."""
        return len(self.scores["model"])

    def mean(self, side: Side) -> Estimate | None:
        """The side's mean; None if no window counts, or there is no such side."""
        return mean(self.scores[side]) if self.windows and side in self.scores else None

    @property
    def win_rate(self) -> Estimate | None:
        """Share of windows on which the model scores higher, a tie counting one half; None if no window counts, or
        there is no rival."""
        return win_rate(self.scores["model"], self.scores["rival"]) if self.windows and "rival" in self.scores else None


@dataclass(frozen=True)
class Outcome:
    """What the judge's `responses` about `sides` come to on `axes`."""

    responses: Sequence[JudgeResponse]
    axes: Sequence[str]
    sides: Sequence[Side] = SIDES
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Axis -> why it was not asked."""

    def axis(self, axis: str) -> AxisResult:
        """One axis alone."""
        return self._over(axis)

    @property
    def overall(self) -> AxisResult:
        """The sum over all axes, on the windows on which every axis counts."""
        return self._over(*self.axes)

    @cached_property
    def statuses(self) -> Counter[Status]:
        """How many verdicts have which status."""
        return Counter(verdict.status for response in self.responses for verdict in response.verdicts)

    @cached_property
    def reasons(self) -> Counter[str]:
        """Why verdicts have no score, and how often."""
        verdicts = (verdict for response in self.responses for verdict in response.verdicts)
        return Counter(verdict.reason or "none given" for verdict in verdicts if verdict.status is not Status.OK)

    @property
    def usage(self) -> Usage:
        """What all of it cost."""
        return sum((response.usage for response in self.responses), Usage())

    def provenance(self, axis: str) -> Provenance:
        """What judged the axis, as the first response names it."""
        return self.responses[0].axes[axis].provenance

    def consistency(self, axis: str) -> float | None:
        """Mean share of pairs that come out the same in both orders; None for what compares no pairs."""
        shares = [response.axes[axis].position_consistency for response in self.responses]
        given = [share for share in shares if share is not None]
        return fmean(given) if given else None

    def _over(self, *axes: str) -> AxisResult:
        scores: dict[Side, list[float]] = {side: [] for side in self.sides}
        for response in self.responses:
            given = {(v.candidate_id, v.axis): v.score for v in response.verdicts if v.score is not None}
            if all((side, axis) in given for side in self.sides for axis in axes):
                for side in self.sides:
                    scores[side].append(sum(given[side, axis] for axis in axes))
        return AxisResult(scores)


def to_json(outcome: Outcome, *, model: str, rival: str | None, control: str | None = None) -> dict[str, Any]:
    """The outcome as one JSON object; an estimate that nothing supports is null. `control` is the token that the model
    was given.
    """
    usage, overall = outcome.usage, outcome.overall
    return {
        "model": model,
        "rival": rival,
        "control": control,
        "windows": len(outcome.responses),
        "axes": {
            axis: {
                "windows": result.windows,
                **{side: _estimate(result.mean(side)) for side in SIDES},
                "win_rate": _estimate(result.win_rate),
                "position_consistency": outcome.consistency(axis),
            }
            for axis, result in ((axis, outcome.axis(axis)) for axis in outcome.axes)
        },
        "overall": {"windows": overall.windows, "win_rate": _estimate(overall.win_rate)},
        "left_out": dict(outcome.left_out),
        "verdicts": {status.value: outcome.statuses[status] for status in Status},
        "judge": {
            "calls": usage.calls,
            "tokens": usage.tokens,
            "provenance": {axis: outcome.provenance(axis).model_dump(mode="json") for axis in outcome.axes},
        },
    }


def table(outcome: Outcome, *, model: str, rival: str | None, control: str | None = None) -> Group:
    """The outcome for a person: axes as rows, the sides as columns, notes below. `control` is the token that the model
    was given.
    """
    statuses, usage = outcome.statuses, outcome.usage
    notes = [
        f"{statuses[Status.OK]} verdicts, {usage.calls} questions, {usage.tokens} tokens; left out: "
        f"{statuses[Status.ABSTAINED]} abstained, {statuses[Status.FAILED]} failed"
    ]
    notes += [f"  {count} x {reason}" for reason, count in outcome.reasons.most_common(_REASONS_SHOWN)]
    notes += [
        f"{axis}: both orders of a pair agree in {share:.1%}"
        for axis in outcome.axes
        if (share := outcome.consistency(axis)) is not None
    ]
    notes += [f"{axis} is left out: {why}" for axis, why in outcome.left_out.items()]
    named = f"{model} behind {control}" if control else model
    against = f"{named} against {rival}" if rival else named
    title = f"{against}, {len(outcome.responses)} windows (95 % intervals)"
    shown = Table("axis")
    for name in ("windows", *outcome.sides, *(["win rate"] if rival else [])):
        shown.add_column(name, justify="right")
    for axis in outcome.axes:
        result = outcome.axis(axis)
        rate = [_cell(result.win_rate)] if rival else []
        shown.add_row(axis, str(result.windows), *map(_cell, map(result.mean, outcome.sides)), *rate)
    if rival:
        overall = outcome.overall
        shown.add_row("all together", str(overall.windows), "", "", _cell(overall.win_rate), style="bold")
    return Group(Text(title), shown, *map(Text, notes))


def _estimate(estimate: Estimate | None) -> dict[str, float | list[float]] | None:
    return estimate.to_json() if estimate else None


def _cell(estimate: Estimate | None) -> str:
    return str(estimate) if estimate else "-"
