"""What an evaluation by the judge is told. Importable without torch, so that a mistake is told at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from preceptor_client.contract import AxisName
from preceptor_client.settings import ClientSettings
from preceptor_trainer.config import DataConfig
from preceptor_trainer.section import Positive, Section


class EvalPlan(Section):
    """What is compared, on what, and by whom."""

    model: str
    rival: str | None = None
    """A second model; None compares with the original suffixes."""
    data: DataConfig
    windows: Positive = 200
    """At most, one a document."""
    axes: Annotated[tuple[AxisName, ...], Field(min_length=1, max_length=16)] = ("quality", "safety", "factuality")
    seed: int = 0
    concurrency: Positive = 16
    """Cohorts at the judge at once."""
    client: ClientSettings = Field(default_factory=ClientSettings)

    @field_validator("axes", mode="before")
    @classmethod
    def _from_one_text(cls, axes: object) -> object:
        """`quality, safety` names two axes, and twice the same name one."""
        if isinstance(axes, str):
            return tuple(dict.fromkeys(name.strip() for name in axes.split(",") if name.strip()))
        return axes
