"""What a cohort says about policy and judge. Pure.

    entropy         mean over the rollouts' tokens of -log mu(token), mu the policy that sampled it: nats a token
    length          mean over the rollouts of their tokens, an end-of-text token among them
    repetition      mean over the rollouts of 1 - distinct n-grams / n-grams, n = 4 (seq-rep-4 of Welleck et al. 2019,
                    arXiv 1908.04319); a rollout without an n-gram does not count
    discrimination  best composite less worst, of two or more
    abstention      abstained / (abstained + ok) of its verdicts

In: a cohort and its response. Out: those of the readings that it has; a reading of the run is their mean over cohorts.
With temperature 1 and nothing cut off, `entropy` is an estimate of the policy's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from preceptor_client.contract import JudgeResponse, Origin, Status
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.guards.config import Reading

N = 4


def of_cohort(cohort: PolicyCohort, response: JudgeResponse) -> dict[Reading, float]:
    """The readings of one cohort."""
    readings: dict[Reading, float] = {}
    rollouts = [each for each in cohort.candidates if each.origin is Origin.ROLLOUT]
    if rollouts:
        readings["length"] = fmean(len(each.ids) for each in rollouts)
    if logps := list(chain.from_iterable(each.logps or () for each in rollouts)):
        readings["entropy"] = -fmean(logps)
    if repeated := [repetition(each.ids) for each in rollouts if len(each.ids) >= N]:
        readings["repetition"] = fmean(repeated)
    scores = [each.score for each in response.composites if each.score is not None]
    if len(scores) >= 2:
        readings["discrimination"] = max(scores) - min(scores)
    statuses = Counter(verdict.status for verdict in response.verdicts)
    if answered := statuses[Status.ABSTAINED] + statuses[Status.OK]:
        readings["abstention"] = statuses[Status.ABSTAINED] / answered
    return readings


def repetition(ids: Sequence[int]) -> float:
    """Share of the n-grams of `ids`, of which there must be one, that occurred before."""
    ngrams = [tuple(ids[start : start + N]) for start in range(len(ids) - N + 1)]
    return 1 - len(set(ngrams)) / len(ngrams)
