"""From verdicts to what is trained on. Pure.

In: a cohort and its `JudgeResponse` with composite scores, or none where the objective asks no judge. Out: the best and
worst candidate, or the reason why there are none. Guarantees: a candidate without a composite (any axis abstained,
failed or missing) is never chosen or rejected by a judge; a cohort whose best and worst tie is dropped. So nothing that
the teacher did not say can become a reward, but for one rule about rollouts: a malformed thought is worth 0.
"""

from __future__ import annotations

import random
from dataclasses import replace
from enum import StrEnum

from preceptor_client.contract import JudgeResponse, Origin, Status
from preceptor_trainer.cohorts import Judged, PolicyCohort

TIE = 1e-9
"""Composites nearer than this are equal: means of a few numbers in [0, 1], up to rounding."""


class Dropped(StrEnum):
    """Why a judged cohort is not trained on."""

    TIED = "tied"
    UNJUDGED = "unjudged"
    """Fewer than two candidates have a composite score."""
    UNFIT = "unfit"
    """It has not the candidates that are needed, or one that the contract does not take."""
    MALFORMED = "malformed"
    """No thought in it is well formed, or not the one that would be chosen."""


def select_by_origin(cohort: PolicyCohort, prefer: tuple[Origin, Origin] | None) -> PolicyCohort | Dropped:
    """The cohort as an objective takes it that asks no judge: with `prefer`, paired by origin, the first over the
    second, and two that are alike are a tie; otherwise as it is, if there is anything in it. What is to become
    likelier is never a malformed thought.
    """
    if prefer is None:
        if all(candidate.malformed for candidate in cohort.candidates):
            return Dropped.MALFORMED if cohort.candidates else Dropped.UNFIT
        return cohort
    of_origin = {candidate.origin: candidate for candidate in reversed(cohort.candidates)}
    chosen, rejected = (of_origin.get(origin) for origin in prefer)
    if chosen is None or rejected is None:
        return Dropped.UNFIT
    if chosen.malformed:
        return Dropped.MALFORMED
    if chosen.ids == rejected.ids:
        return Dropped.TIED
    return replace(cohort, judged=Judged(scores={}, axis_scores={}, chosen=chosen, rejected=rejected))


def select(cohort: PolicyCohort, response: JudgeResponse) -> Judged | Dropped:
    """The best and worst by the composite scores. Of equal bests (or worsts): one by lot, fixed by window."""
    axis_scores: dict[str, dict[str, float]] = {}
    for verdict in response.verdicts:
        if verdict.score is not None:
            axis_scores.setdefault(verdict.axis, {})[verdict.candidate_id] = verdict.score
    scores = {one.candidate_id: one.score for one in response.composites if one.score is not None}
    asked = [candidate for candidate in cohort.candidates if not candidate.malformed]
    scores |= {candidate.id: 0.0 for candidate in cohort.candidates if candidate.malformed}
    if len(scores) < 2:
        return Dropped.UNJUDGED
    best, worst = max(scores.values()), min(scores.values())
    if best - worst <= TIE:
        return Dropped.TIED
    ok = {(verdict.candidate_id, verdict.axis) for verdict in response.verdicts if verdict.status is Status.OK}
    rng = random.Random(cohort.window.id)
    judged = [candidate for candidate in cohort.candidates if candidate.id in scores]
    return Judged(
        scores=scores,
        axis_scores=axis_scores,
        chosen=rng.choice([candidate for candidate in judged if scores[candidate.id] >= best - TIE]),
        rejected=rng.choice([candidate for candidate in judged if scores[candidate.id] <= worst + TIE]),
        failed=tuple(each.id for each in asked if any((each.id, axis) not in ok for axis in response.axes)),
    )
