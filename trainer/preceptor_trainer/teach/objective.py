"""GRPO whose groups may span prompts. Pure.

In: an exercise, the answers to its prompts and their rewards. Out: cohorts whose scores are advantages already, for the
learner. A pair's two orders are two prompts and one group, which `Grpo` by itself does not know: it compares within a
cohort, and a cohort has one prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives.grpo import Grpo, advantages
from preceptor_trainer.objectives.objective import TrainingSequence, judged
from preceptor_trainer.objectives.selection import TIE
from preceptor_trainer.rollouts.engine import Rollout
from preceptor_trainer.teach.course import Exercise
from preceptor_trainer.teach.rewards import Reward


class TaughtGrpo(Grpo):
    """`Grpo`'s loss with the scores of `cohorts_of` as advantages."""

    def sequences(self, cohorts: Sequence[PolicyCohort], version: int) -> list[TrainingSequence]:
        return [
            TrainingSequence(
                cohort.window.prefix, answer.ids, answer.logps, scores[answer.id], version - cohort.version
            )
            for cohort in cohorts
            for scores in [judged(cohort).scores]
            for answer in cohort.candidates
            if answer.id in scores
        ]


def cohorts_of(
    number: int,
    exercise: Exercise,
    answers: Sequence[Sequence[Rollout]],
    rewards: Sequence[Sequence[Reward]],
    *,
    version: int,
    normalize_std: bool,
) -> list[PolicyCohort]:
    """One for each prompt that has answers with a reward; none if all rewards tie. `number` tells exercises apart."""
    known = [reward for of_prompt in rewards for reward in of_prompt if reward is not None]
    if not known or max(known) - min(known) <= TIE:
        return []
    values = iter(advantages(known, normalize_std=normalize_std))
    cohorts = []
    for place, (prompt, sampled, earned) in enumerate(zip(exercise.prompts, answers, rewards, strict=True)):
        candidates = tuple(
            TokenCandidate(f"answer-{n}", Origin.ROLLOUT, answer.ids, "", answer.logps)
            for n, answer in enumerate(sampled)
        )
        rewarded = [(each, reward) for each, reward in zip(candidates, earned, strict=True) if reward is not None]
        if not rewarded:
            continue
        by_reward = [each for each, _ in sorted(rewarded, key=lambda one: one[1])]
        cohorts.append(
            PolicyCohort(
                f"{number}-{place}",
                Window(0, number, prompt, ()),
                version,
                candidates,
                Judged(
                    scores={each.id: next(values) for each, _ in rewarded},
                    axis_scores={exercise.kind: {each.id: reward for each, reward in rewarded}},
                    chosen=by_reward[-1],
                    rejected=by_reward[0],
                ),
            )
        )
    return cohorts
