"""What a course is: exercises, what answers to them earn, and an exam. One course a file: `judge`, `rewriter`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from preceptor_trainer.evaluation.statistics import Estimate
from preceptor_trainer.teach.material import Passage
from preceptor_trainer.teach.respondent import Respondent
from preceptor_trainer.teach.rewards import Reward
from preceptor_trainer.teach.wording import Ids

Marks = Mapping[str, Estimate]
"""What an exam measured, by name, with 95 % intervals."""


@dataclass(frozen=True)
class Exercise:
    """Prompts whose answers' rewards are compared with each other. `kind` is what its rewards are logged as."""

    kind: str
    prompts: tuple[Ids, ...]


ExerciseT = TypeVar("ExerciseT", bound=Exercise)


class Course(Protocol[ExerciseT]):
    """Draws with the generator it is given, so that the same seed gives the same exercises."""

    @property
    def max_tokens(self) -> int:
        """Longest answer."""
        ...

    def draw(self, passages: Sequence[Passage], rng: random.Random) -> list[ExerciseT]:
        """An exercise from each passage that gives one."""
        ...

    async def rewards(
        self, exercises: Sequence[ExerciseT], answers: Sequence[Sequence[Sequence[str]]], seed: int
    ) -> list[list[list[Reward]]]:
        """By exercise, prompt and answer."""
        ...

    async def examine(self, teacher: Respondent) -> Marks:
        """Likeliest answers to the same held-out exercises each time."""
        ...
