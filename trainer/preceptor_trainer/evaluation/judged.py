"""Two sides compared by a judge on the same held-out windows: the questions, and what the answers come to. Pure.

In: a model's generations and its rival's for the same windows, then the judge's responses. Out: `JudgeRequest`s, and an
`Outcome` with an estimate per axis. Guarantees: a verdict that was abstained or failed is counted and left out, never
read as a number; an axis looks only at windows on which both sides have a score, so its figures can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rich.table import Table

from preceptor_client.contract import (
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Origin,
    Provenance,
    Status,
    Usage,
)
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.statistics import Estimate, mean, win_rate

_REASONS_SHOWN = 3

Side = Literal["model", "rival"]
SIDES: tuple[Side, Side] = ("model", "rival")
ORIGINAL = "the original suffix"
"""What the rival is called when no second model is."""


@dataclass(frozen=True)
class Pair:
    """What the two sides wrote for one window. `rival` is the original suffix if no second model takes part."""

    prefix: str
    original: str
    model: str
    rival: str


def pairs(model: Sequence[Generation], rival: Sequence[Generation] | None) -> list[Pair]:
    """The sides' texts, window by window. Without a `rival` the original suffixes stand in for it."""
    others = [each.original for each in model] if rival is None else [each.text for each in rival]
    return [Pair(each.prefix, each.original, each.text, other) for each, other in zip(model, others, strict=True)]


def request(number: int, pair: Pair, axes: Sequence[str], *, rival_origin: Origin = Origin.ROLLOUT) -> JudgeRequest:
    """The question about window `number`. Raises pydantic's ValidationError for what is beyond the contract."""
    candidates = (
        Candidate(id="model", text=pair.model),
        Candidate(id="rival", origin=rival_origin, text=pair.rival),
    )
    cohort = Cohort(id=f"window-{number}", prefix=pair.prefix, candidates=candidates, reference=pair.original)
    return JudgeRequest(cohort=cohort, axes=tuple(axes))


@dataclass(frozen=True)
class AxisResult:
    """One axis: `scores[side]` has a score for each window on which both sides have one, in the same order."""

    scores: Mapping[Side, Sequence[float]]

    @property
    def windows(self) -> int:
        """Windows that count."""
        return len(self.scores["model"])

    def mean(self, side: Side) -> Estimate | None:
        """The side's mean; None if no window counts."""
        return mean(self.scores[side]) if self.windows else None

    @property
    def win_rate(self) -> Estimate | None:
        """Share of windows on which the model scores higher, a tie counting one half; None if no window counts."""
        return win_rate(self.scores["model"], self.scores["rival"]) if self.windows else None


@dataclass(frozen=True)
class Outcome:
    """What the judge's `responses` come to on `axes`."""

    responses: Sequence[JudgeResponse]
    axes: Sequence[str]

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

    def _over(self, *axes: str) -> AxisResult:
        scores: dict[Side, list[float]] = {side: [] for side in SIDES}
        for response in self.responses:
            given = {(v.candidate_id, v.axis): v.score for v in response.verdicts if v.score is not None}
            if all((side, axis) in given for side in SIDES for axis in axes):
                for side in SIDES:
                    scores[side].append(sum(given[side, axis] for axis in axes))
        return AxisResult(scores)


def to_json(outcome: Outcome, *, model: str, rival: str) -> dict[str, Any]:
    """The outcome as one JSON object; an estimate that nothing supports is null."""
    usage, overall = outcome.usage, outcome.overall
    return {
        "model": model,
        "rival": rival,
        "windows": len(outcome.responses),
        "axes": {
            axis: {
                "windows": result.windows,
                **{side: _estimate(result.mean(side)) for side in SIDES},
                "win_rate": _estimate(result.win_rate),
            }
            for axis, result in ((axis, outcome.axis(axis)) for axis in outcome.axes)
        },
        "overall": {"windows": overall.windows, "win_rate": _estimate(overall.win_rate)},
        "verdicts": {status.value: outcome.statuses[status] for status in Status},
        "judge": {
            "calls": usage.calls,
            "tokens": usage.tokens,
            "provenance": {axis: outcome.provenance(axis).model_dump(mode="json") for axis in outcome.axes},
        },
    }


def table(outcome: Outcome, *, model: str, rival: str) -> Table:
    """The outcome for a person: axes as rows, the two sides as columns."""
    statuses, usage = outcome.statuses, outcome.usage
    notes = [
        f"{statuses[Status.OK]} verdicts, {usage.calls} questions, {usage.tokens} tokens; left out: "
        f"{statuses[Status.ABSTAINED]} abstained, {statuses[Status.FAILED]} failed"
    ]
    notes += [f"  {count} x {reason}" for reason, count in outcome.reasons.most_common(_REASONS_SHOWN)]
    shown = Table(
        title=f"{model} against {rival}, {len(outcome.responses)} held-out windows (95 % intervals)",
        caption="\n".join(notes),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("axis")
    for name in ("windows", "model", "rival", "win rate"):
        shown.add_column(name, justify="right")
    for axis in outcome.axes:
        result = outcome.axis(axis)
        shown.add_row(axis, str(result.windows), *map(_cell, (*map(result.mean, SIDES), result.win_rate)))
    overall = outcome.overall
    shown.add_row("all together", str(overall.windows), "", "", _cell(overall.win_rate), style="bold")
    return shown


def _estimate(estimate: Estimate | None) -> dict[str, float | list[float]] | None:
    return estimate.to_json() if estimate else None


def _cell(estimate: Estimate | None) -> str:
    return str(estimate) if estimate else "-"
