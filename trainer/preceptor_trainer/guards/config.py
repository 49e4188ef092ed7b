"""The section `guards` of a training configuration. Importable without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from preceptor_trainer.section import DataSource, Positive, Seconds, Section, Weight

Reading = Literal["held_out_nll", "entropy", "length", "repetition", "discrimination", "abstention"]
OF_ROLLOUTS: tuple[Reading, ...] = ("entropy", "length", "repetition")
OF_VERDICTS: tuple[Reading, ...] = ("discrimination", "abstention")

PLACE = ("source", "path", "split", "text_field")
"""Keys of `held_out_nll` that stand for those of `data`."""

GuardAction = Literal["warn", "pause", "stop"]


class Guard(Section):
    """The limits of a reading, and what is done about one beyond them. What is None is no limit."""

    above: float | None = None
    below: float | None = None
    warn_after: Positive = 3
    """Readings in a row beyond a limit after which the run says so."""
    act_after: Positive = 6
    """Readings in a row beyond a limit after which it does what `action` says."""
    action: GuardAction = "warn"
    """`warn`: nothing more. `pause`: wait for the operator. `stop`: end the run. Both keep a checkpoint."""

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        if self.warn_after > self.act_after:
            raise ValueError(f"warn_after ({self.warn_after}) is above act_after ({self.act_after})")
        limits = self.model_dump(include={"above", "below", "rise", "fall"})
        if all(limit is None for limit in limits.values()):
            raise ValueError(f"a guard needs a limit: set one of {', '.join(limits)}")
        return self


class BaselineGuard(Guard):
    """Of a reading whose scale is the model's or the judge's own: it may be compared with the run's first ones."""

    rise: Weight | None = None
    """Share of the baseline by which a reading may lie over it."""
    fall: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the baseline by which a reading may lie under it."""
    baseline: Positive = 10
    """How many of the first readings make the baseline, their mean; `rise` and `fall` count once it is there."""


class HeldOutGuard(BaselineGuard):
    """Of the NLL on documents that are not trained on. What is left out of where they are is as in `data`."""

    source: DataSource | None = None
    path: str | None = None
    split: str | None = None
    text_field: str | None = None
    windows: Positive = 64
    """The first so many of the documents, cut as `data` says; always the same."""
    every: Positive = 10
    """Updates between two readings; the first one is taken before the first update."""
    baseline: Positive = 1
    warn_after: Positive = 1
    act_after: Positive = 3


class GuardsConfig(Section):
    """Which readings are watched for drift, and what is done about it; a guard that is left out costs nothing. See
    docs/drift-guards.md."""

    held_out_nll: HeldOutGuard | None = None
    """Nats a token."""
    entropy: BaselineGuard | None = None
    """Of the rollouts, nats a token."""
    length: BaselineGuard | None = None
    """Of the rollouts, tokens."""
    repetition: Guard | None = None
    """Share of the rollouts' n-grams that occurred before in the same one."""
    discrimination: BaselineGuard | None = None
    """Best composite score of a cohort less its worst."""
    abstention: Guard | None = None
    """Share of the answered verdicts in which the judge abstained."""
    pause_limit_s: Seconds = 86_400.0
    """How long a pause waits before it ends the run as `stop` does."""

    @property
    def on(self) -> dict[Reading, Guard]:
        """The guards that there are."""
        guards: dict[Reading, Guard | None] = {name: getattr(self, name) for name in get_args(Reading)}
        return {name: guard for name, guard in guards.items() if guard}
