"""What an evaluation is told. Importable without torch, so that a mistake is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from preceptor_client.contract import AxisName
from preceptor_client.settings import ClientSettings
from preceptor_trainer.controls import Token
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.section import NonNegative, Positive, Section


def _from_one_text(names: object) -> object:
    """`quality, safety` names two, and twice the same one names one."""
    if isinstance(names, str):
        return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    return names


Axes = Annotated[tuple[AxisName, ...], Field(min_length=1, max_length=16)]


class EvalPlan(Section):
    """What is compared, on what, and by whom."""

    model: str
    rival: str | None = None
    """A second model; None compares with the original suffixes, and prompts with nothing."""
    control: Token | None = None
    """Put in front of what `model` reads, and the judge does not see."""
    data: DataConfig
    prompts: bool = False
    """Documents are prompts, without a suffix to compare with; `data.suffix_tokens` are written after each."""
    windows: Positive = 200
    """At most, one a document."""
    axes: Annotated[Axes | None, BeforeValidator(_from_one_text)] = None
    """None: those of `rubrics`, or else quality, safety and factuality."""
    rubrics: tuple[str, ...] = ()
    """In place of the judge's defaults: names of rubrics that it has, files and folders."""
    seed: int = 0
    concurrency: Positive = 16
    """Cohorts at the judge at once."""
    client: ClientSettings = Field(default_factory=ClientSettings)
    samples: Path | None = None
    """A file for what was written: a line of JSON a window, with its `prefix`, `original`, `model` and `rival`."""


class HarnessPlan(Section):
    """What lm-evaluation-harness runs."""

    model: str
    tasks: Annotated[tuple[str, ...], BeforeValidator(_from_one_text), Field(min_length=1)]
    include: Path | None = None
    """A folder of tasks, besides those that come with it."""
    fewshot: NonNegative | None = None
    """Examples in the prompt; None leaves it to the task."""
    limit: Positive | None = None
    """Documents of each task at most."""
    batch_size: Positive = 8
    seed: int = 0
