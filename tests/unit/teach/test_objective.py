from __future__ import annotations

import pytest

from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.rollouts.engine import Rollout
from preceptor_trainer.teach.course import Exercise
from preceptor_trainer.teach.objective import TaughtGrpo, cohorts_of
from preceptor_trainer.teach.rewards import Reward

PAIR = Exercise("quality", ((1, 2), (3, 4)))


def made(*rewards: list[Reward]) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """(prompt, answer) -> advantage."""
    answers = [[Rollout((10 * place + n,), (-1.0,)) for n in range(len(of))] for place, of in enumerate(rewards)]
    cohorts = cohorts_of(0, PAIR, answers, rewards, version=3, normalize_std=False)
    sequences = TaughtGrpo(ObjectiveConfig(name="grpo", correction="none"), 1).sequences(cohorts, 3)
    assert all(sequence.staleness == 0 for sequence in sequences)
    return {(sequence.prefix, sequence.suffix): sequence.advantage for sequence in sequences}


def test_answers_are_compared_with_those_to_both_prompts() -> None:
    assert made([0.2, 0.0], [0.8, 0.0]) == {
        ((1, 2), (0,)): pytest.approx(-0.05),
        ((1, 2), (1,)): pytest.approx(-0.25),
        ((3, 4), (10,)): pytest.approx(0.55),
        ((3, 4), (11,)): pytest.approx(-0.25),
    }


def test_an_exercise_whose_answers_all_earn_the_same_does_not_train() -> None:
    assert made([0.5, 0.5], [0.5, 0.5]) == {}
    assert made([None, None], [None, None]) == {}


def test_an_answer_without_a_reward_does_not_train() -> None:
    assert set(made([1.0, None], [0.0, 0.0])) == {((1, 2), (0,)), ((3, 4), (10,)), ((3, 4), (11,))}
    assert set(made([None, None], [1.0, 0.0])) == {((3, 4), (10,)), ((3, 4), (11,))}
