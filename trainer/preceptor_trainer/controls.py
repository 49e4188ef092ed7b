"""Control tokens: one policy, several behaviours, and a token in front of the prefix that says which.

In: the section `controls` of a training configuration, a seed, a window's id. Out: the window's control. Guarantees:
seed and id alone decide it, so that a run that is resumed decides the same; of many windows each control gets its
share. Pure; importable without torch.

The token is put in front of what the policy reads (when it samples and when its suffixes are scored, the reference's as
well), never of what a judge or a rewriter reads. What is rewarded behind it is its own composition, in place of the
run's, or, with `prefer`, no judge's choice at all. Source: conditional training, as in Korbak et al. 2023 (arXiv
2302.08582), with rewards in place of labels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import isclose
from typing import Annotated, Self

from pydantic import Field, model_validator

from preceptor_client.contract import Composition, Origin
from preceptor_client.contract.composition import Gates, Weights, check_guards
from preceptor_trainer.section import Section

Token = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S+$")]


class ControlConfig(Section):
    """A control token, how many of the windows bear it, and what is rewarded behind it."""

    token: Token
    """One token of the policy's tokenizer; one that it does not have is added to it, and to the model's embeddings."""
    share: Annotated[float, Field(gt=0, lt=1)]
    """Of the windows."""
    axes: Weights | None = None
    gates: Gates = ()
    """In place of `judge.axes` and `judge.gates`."""
    prefer: tuple[Origin, Origin] | None = None
    """In place of a judge, for dpo and rf_nll: the first origin is chosen over the second. [original, rollout] goes on
    as the documents do."""

    @model_validator(mode="after")
    def _rewards_one_thing(self) -> Self:
        if (self.axes is None) == (self.prefer is None):
            raise ValueError(f"control {self.token} needs axes, or else prefer")
        if self.prefer and (self.gates or self.prefer[0] is self.prefer[1]):
            raise ValueError(f"prefer of control {self.token} names two origins, and goes without gates")
        check_guards(self.gates, self.axes or {})
        return self

    @property
    def composition(self) -> Composition | None:
        """How verdicts become one score; None if there are none."""
        return Composition(weights=self.axes, gates=self.gates) if self.axes else None


def check_controls(controls: Sequence[ControlConfig]) -> None:
    """Raises ValueError unless they are several, with shares that make a whole."""
    if len({control.token for control in controls}) < max(2, len(controls)):
        raise ValueError("controls switch between behaviours: name two or more, each with a token of its own")
    if not isclose(total := sum(control.share for control in controls), 1, abs_tol=1e-6):
        raise ValueError(f"the shares of the controls add up to {total:g}: they have to make 1")


def control_of(controls: Sequence[ControlConfig], seed: int, window: str) -> ControlConfig:
    """That of the window with the id `window`."""
    draw = random.Random(f"control/{seed}/{window}")
    return draw.choices(controls, [control.share for control in controls])[0]
