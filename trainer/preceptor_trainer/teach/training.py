"""The lessons: exercises, answers, rewards, an update; again until the steps are done.

    passages -> exercises -> `count` answers a prompt -> rewards -> advantages by exercise -> update -> weights back

In: a course, a learner and the respondent that answers with its weights. Out: weights moved, a line of `metrics.jsonl`
an update, checkpoints. Guarantees: each answer is of the weights that it trains, so nothing is stale; exercises whose
answers all earn the same do not train and are counted as `tied`; what `stop` cuts short has left no trace, and a run
that is resumed draws it again. Raises `TrainError`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from preceptor_trainer.checkpoint import TrainerState, prune, rng_states, save_checkpoint, step_directory
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.rollouts.engine import Rollout
from preceptor_trainer.teach.config import TeachConfig
from preceptor_trainer.teach.course import Course, ExerciseT
from preceptor_trainer.teach.material import Passages
from preceptor_trainer.teach.objective import cohorts_of
from preceptor_trainer.teach.respondent import Respondent, Stopped
from preceptor_trainer.telemetry import METRICS_FILE, Telemetry


@dataclass
class Lessons(Generic[ExerciseT]):
    """`saved` is what checkpoints are written from; `draws` counts those made so far."""

    config: TeachConfig
    course: Course[ExerciseT]
    passages: Passages
    learner: Learner
    teacher: Respondent
    codec: Codec
    saved: Any
    telemetry: Telemetry
    draws: int = 0

    async def run(self) -> bool:
        """False if it was stopped."""
        every, kept = self.config.checkpoint.every, self.learner.version
        fruitless = 0
        state = self.state()
        while self.learner.version < self.config.steps:
            try:
                cohorts = await self._cohorts()
            except Stopped:
                if self.learner.version > kept:
                    await self._save(state)
                return False
            fruitless = 0 if cohorts else fruitless + 1
            if fruitless == self.config.give_up_after:
                raise TrainError(
                    f"in {fruitless} draws in a row all answers to each exercise earned the same: the teacher knows "
                    "all of this or none of it; raise answers.temperature or answers.count, or take another teacher"
                )
            if cohorts:
                await self._update(cohorts)
            state = self.state()
            if every and self.learner.version % every == 0 and self.learner.version > kept:
                await self._save(state)
                prune(self.config.out, self.config.checkpoint.keep)
                kept = self.learner.version
        if self.learner.version > kept:
            await self._save(state)
        return True

    async def _cohorts(self) -> list[PolicyCohort]:
        """Of the next draw, those that train."""
        config, draw = self.config, self.draws + 1
        rng = random.Random(f"{config.seed}/{draw}")
        exercises = self.course.draw(self.passages.take(config.exercises_per_step), rng)
        prompts = [prompt for exercise in exercises for prompt in exercise.prompts]
        with self.telemetry.clock("sampling"):
            sampled = await self.teacher.sample(
                prompts,
                count=config.answers.count,
                max_tokens=self.course.max_tokens,
                temperature=config.answers.temperature,
                top_p=config.answers.top_p,
                seed=rng.getrandbits(31),
            )
        left = iter(sampled)
        answers = [[next(left) for _ in exercise.prompts] for exercise in exercises]
        with self.telemetry.clock("rewarding"):
            rewards = await self.course.rewards(exercises, self._texts(answers), rng.getrandbits(31))
        cohorts: list[PolicyCohort] = []
        for number, (exercise, of_exercise, earned) in enumerate(zip(exercises, answers, rewards, strict=True)):
            made = cohorts_of(
                number,
                exercise,
                of_exercise,
                earned,
                version=self.learner.version,
                normalize_std=config.normalize_std,
            )
            self.telemetry.count("trained" if made else "tied")
            cohorts += made
        self.draws = draw
        return cohorts

    def _texts(self, answers: Sequence[Sequence[Sequence[Rollout]]]) -> list[list[list[str]]]:
        return [
            [[self.codec.decode(answer.ids) for answer in of_prompt] for of_prompt in of_exercise]
            for of_exercise in answers
        ]

    async def _update(self, cohorts: Sequence[PolicyCohort]) -> None:
        version = self.learner.version
        with self.telemetry.clock("updating"):
            stats = await asyncio.to_thread(self.learner.update, cohorts)
        with self.telemetry.clock("syncing"):
            await self.teacher.engine.load(self.learner.model, self.learner.version)
        self.telemetry.step(version, cohorts, stats)

    def state(self) -> TrainerState:
        """What a run needs to go on from here."""
        return TrainerState(
            run=self.config.run,
            step=self.learner.version,
            rng=rng_states(),
            samplings=self.draws,
            position=self.passages.position,
            in_flight=[],
            files={METRICS_FILE: self.telemetry.bytes},
            config=self.config.model_dump(mode="json"),
        )

    async def _save(self, state: TrainerState) -> None:
        self.telemetry.flush_to_disk()
        target = step_directory(self.config.out, state.step)
        await asyncio.to_thread(
            save_checkpoint, target, self.saved, self.codec.tokenizer, state, self.learner.moments()
        )
