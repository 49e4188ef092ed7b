"""From verdicts to what is trained on. Pure.

In: a cohort and its `JudgeResponse`. Out: composite scores and the best and worst candidate, or the reason why there
are none. Guarantees: a candidate with any axis abstained, failed or missing has no score and is never chosen or
rejected; a cohort whose best and worst tie is dropped. So nothing that the teacher did not say can become a reward.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum

from preceptor_client.contract import JudgeResponse, Status
from preceptor_trainer.cohorts import Judged, PolicyCohort

TIE = 1e-9
"""Composites nearer than this are equal: sums of a few numbers in [0, 1], up to rounding."""


class Dropped(StrEnum):
    """Why a judged cohort is not trained on."""

    TIED = "tied"
    UNJUDGED = "unjudged"
    """Fewer than two candidates have a verdict on every axis."""


def select(cohort: PolicyCohort, response: JudgeResponse, weights: Mapping[str, float]) -> Judged | Dropped:
    """The composite is the sum over the axes of weight x score. Of equal bests (or worsts): one by lot, fixed by
    window.
    """
    axis_scores: dict[str, dict[str, float]] = {axis: {} for axis in weights}
    for verdict in response.verdicts:
        if verdict.status is Status.OK and verdict.score is not None and verdict.axis in weights:
            axis_scores[verdict.axis][verdict.candidate_id] = verdict.score
    scores = {
        candidate.id: sum(weight * axis_scores[axis][candidate.id] for axis, weight in weights.items())
        for candidate in cohort.candidates
        if all(candidate.id in axis_scores[axis] for axis in weights)
    }
    if len(scores) < 2:
        return Dropped.UNJUDGED
    best, worst = max(scores.values()), min(scores.values())
    if best - worst <= TIE:
        return Dropped.TIED
    rng = random.Random(cohort.window.id)
    judged = [candidate for candidate in cohort.candidates if candidate.id in scores]
    return Judged(
        scores=scores,
        axis_scores=axis_scores,
        chosen=rng.choice([candidate for candidate in judged if scores[candidate.id] >= best - TIE]),
        rejected=rng.choice([candidate for candidate in judged if scores[candidate.id] <= worst + TIE]),
    )
