"""What a study is: named variants of one training run. Data, as YAML; the packaged ones are in `studies`.

In: a name, or the path of a YAML file. Out: a `Study`. Raises `TrainError`, whose text says what to change. Importable
without torch.

    title: Rollouts per prefix
    question: What do more rollouts bring?
    size: {steps: 60}
    variants:
      - {name: k-1, about: 1 rollout, changes: {pool.rollouts: 1}}
      - {name: k-8, about: 8 rollouts, changes: {pool.rollouts: 8}}

A variant is the demo's SIP run (`preceptor_trainer.demo.plan.sip`) with some keys changed; a key is replaced whole, and
is named as on the command line of `preceptor train`. It may go on from the policy of a variant above it, or be judged
by a teacher that was made of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from preceptor_client.config import describe
from preceptor_client.contract import Identifier
from preceptor_trainer.controls import Token
from preceptor_trainer.demo.plan import DemoSize
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.section import Positive, Section

STARTS = ("base", "scratch")
"""The models of a seed's world: pretrained, and one that has learned nothing."""
_PACKAGED = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class StudySize(DemoSize):
    """The demo's numbers, and those of the evaluation."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    judged: int = 200
    """Of the held-out windows, those that are put to the two judges."""
    second_steps: int = 1400
    """Updates of the second judge, which never trains a policy."""


class Variant(Section):
    """A row of the study's tables."""

    name: Identifier
    about: str
    """In a few words, for the tables."""
    trained: bool = True
    """False: the model that the others start from, as it is."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Key of the training configuration -> its value."""
    start: Identifier = "base"
    """The policy begins as that model: one of `STARTS`, or what a variant above has come to."""
    teacher_steps: Positive | None = None
    """Updates of the judge that trains this policy; None is the nano teacher as it is everywhere else."""
    teacher_from: Identifier | None = None
    """Its judge begins as that model, as `start` names it; None: at random."""
    hold: bool = False
    """Hold the verdicts back until the rollouts are as old as `staleness.limit` allows."""
    control: Token | None = None
    """Measured behind that token, one of its `controls`. Variants that differ by this alone are trained once."""
    flops_of: Identifier | None = None
    """Train for as many steps as take the FLOPs of that variant, policy and teacher together."""

    @property
    def needs(self) -> list[str]:
        """Variants whose policies it begins with."""
        return [name for name in (self.start, self.teacher_from) if name and name not in STARTS]


BASE = Variant(name="base", about="base model", trained=False)
"""Is in every study: what the others are compared with."""


class Study(Section):
    """A study. `name` is that of its file."""

    name: Identifier
    title: str
    question: str
    found: str = ""
    """What the results of `docs/results` say to it: in words, as the figures are in the tables."""
    takes: str = ""
    """How long, about, and where."""
    size: StudySize = StudySize()
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        by_name = {variant.name: variant for variant in self.variants}
        if len(by_name) < len(self.variants) or by_name.keys() & set(STARTS):
            raise ValueError(f"variants must have names of their own, and none may be called {' or '.join(STARTS)}")
        above: set[str] = set()
        for variant in self.variants:
            if unknown := set(variant.needs) - above:
                raise ValueError(f"{variant.name}: there is no trained variant {', '.join(sorted(unknown))} above it")
            if variant.trained:
                above.add(variant.name)
            elif variant.control:
                raise ValueError(f"{variant.name}: control is for what was trained with controls")
            if variant.flops_of and (variant.flops_of not in by_name or by_name[variant.flops_of].flops_of):
                raise ValueError(f"{variant.name}: flops_of has to name a variant with steps of its own")
        return self


def packaged() -> list[str]:
    """The names of the studies that come with the project."""
    return sorted(path.stem for path in _PACKAGED.glob("*.yaml"))


def load_study(name: str) -> Study:
    """A study by name, or from a file that ends in `.yaml`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _PACKAGED / f"{name}.yaml"
    if not path.is_file():
        raise TrainError(f"no study {name}: there is {', '.join(packaged())}, or give the path of a YAML file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Study.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise TrainError(f"{path} is no study: {one_line(describe(error))}") from None
    except (OSError, yaml.YAMLError, ValueError, TypeError) as error:
        raise TrainError(f"cannot read {path}: {one_line(str(error))}") from None
