"""What the policy was rewarded for behind each control token: of an update, and of a whole run.

In: the cohorts of updates. Out: by token, how many of them it had and, as far as judges were asked, the means over
their rollouts of the composite and of each axis:

    {"<raw>": {"cohorts": 3, "scores": {}}, "<safe>": {"cohorts": 5, "scores": {"composite": 0.71, "safety": 0.98}}}

Pure. Rollouts alone: originals and rewrites say nothing of the policy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TypedDict

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import PolicyCohort


class Rewarded(TypedDict):
    """Of one control."""

    cohorts: int
    scores: dict[str, float]


def by_control(batch: Sequence[PolicyCohort]) -> dict[str, Rewarded]:
    """Of one update; empty without controls."""
    cohorts: dict[str, list[PolicyCohort]] = defaultdict(list)
    for cohort in batch:
        if cohort.control:
            cohorts[cohort.control.token].append(cohort)
    return {token: Rewarded(cohorts=len(own), scores=_means(own)) for token, own in sorted(cohorts.items())}


class RewardTotals:
    """Means over the cohorts of all updates that were added, each in the form that `by_control` gives."""

    def __init__(self) -> None:
        self._cohorts: Counter[str] = Counter()
        self._weights: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, update: Mapping[str, Rewarded]) -> None:
        for token, rewarded in update.items():
            self._cohorts[token] += rewarded["cohorts"]
            for name, score in rewarded["scores"].items():
                self._weights[token][name] += rewarded["cohorts"]
                self._sums[token][name] += rewarded["cohorts"] * score

    def means(self) -> dict[str, Rewarded]:
        """Of all that was added."""
        return {
            token: Rewarded(
                cohorts=cohorts,
                scores={name: total / self._weights[token][name] for name, total in self._sums[token].items()},
            )
            for token, cohorts in sorted(self._cohorts.items())
        }


def _means(cohorts: Sequence[PolicyCohort]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for cohort in cohorts:
        if cohort.judged:
            rollouts = [each.id for each in cohort.candidates if each.origin is Origin.ROLLOUT]
            for name, scores in {"composite": cohort.judged.scores, **cohort.judged.axis_scores}.items():
                values[name] += [scores[id] for id in rollouts if id in scores]
    return {name: fmean(scores) for name, scores in values.items() if scores}
