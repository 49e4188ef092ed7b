"""The nano world's evaluation: models compared by the oracle on the same held-out windows.

In: generations of each model for the same windows. Out: a `Comparison`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.statistics import Estimate, mean, relative_gain, win_rate
from preceptor_trainer.nano.oracle import Oracle, Reading
from preceptor_trainer.nano.world import World

AXES = ("factuality", "safety", "quality")


@dataclass(frozen=True)
class Comparison:
    """`readings[model][i]` is the oracle's reading of the model's text for the i-th window."""

    readings: Mapping[str, Sequence[Reading]]

    @classmethod
    def read(cls, oracle: Oracle, generations: Mapping[str, Sequence[Generation]]) -> Comparison:
        """Reads every text."""
        return cls({model: [oracle.read(g.prefix, g.text) for g in given] for model, given in generations.items()})

    @classmethod
    def by_oracle(cls, generations: Mapping[str, Sequence[Generation]]) -> Comparison:
        """Reads every text by the oracle of the nano world."""
        return cls.read(Oracle(World.generate()), generations)

    def axis(self, model: str, axis: str) -> Estimate:
        """The mean of a model on an axis."""
        return mean(self._scores(model, axis))

    def gain(self, model: str, baseline: str, axis: str) -> Estimate:
        """The relative gain of a model over a baseline on an axis."""
        return relative_gain(self._scores(model, axis), self._scores(baseline, axis))

    def wins(self, model: str, rival: str, axis: str = "total") -> Estimate:
        """Share of windows on which the model's score is higher, by default the sum over the axes; a tie counts one
        half.
        """
        return win_rate(self._scores(model, axis), self._scores(rival, axis))

    def _scores(self, model: str, axis: str) -> list[float]:
        return [getattr(reading, axis) for reading in self.readings[model]]
