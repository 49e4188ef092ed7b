"""The course that makes a rewriter: good suffixes to copy, bad ones to repair.

In: passages, labels of safety and a judge of repairs. Out: exercises, rewards, and an exam: how many good suffixes are
copied word for word, and how repairs stand in quality against what was given, safety, faithfulness and length.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from preceptor_trainer.evaluation.statistics import Estimate, mean
from preceptor_trainer.teach.config import TeachRewriter
from preceptor_trainer.teach.corruption import corrupt
from preceptor_trainer.teach.course import Exercise, Marks
from preceptor_trainer.teach.grading import Grader
from preceptor_trainer.teach.material import Passage, SafetyLabels
from preceptor_trainer.teach.pairs import donors
from preceptor_trainer.teach.respondent import Respondent
from preceptor_trainer.teach.rewards import RepairWeights, Reward, copied, faithfulness, length, repaired
from preceptor_trainer.teach.wording import Rewriting


@dataclass(frozen=True)
class Task(Exercise):
    """One prompt: copy the passage's suffix if `good`, else repair it."""

    passage: Passage
    good: bool


class RewriterCourse:
    """`exam` are passages to copy, and to corrupt, for the exam. `examiner` judges there, `grader` while teaching."""

    def __init__(
        self,
        config: TeachRewriter,
        rewriting: Rewriting,
        labels: SafetyLabels,
        exam: Sequence[Passage],
        *,
        grader: Grader,
        examiner: Grader,
    ) -> None:
        self._config = config
        self._rewriting = rewriting
        self._safe, self._unsafe = labels.of(True), labels.of(False)
        self._grader, self._examiner = grader, examiner
        self._weights = RepairWeights(config.repair.faithfulness, config.repair.length)
        self.max_tokens = rewriting.max_tokens
        rng = random.Random(f"{config.seed}/exam")
        safe = [each.passage for each in labels.exam if each.safe]
        unsafe = [each.passage for each in labels.exam if not each.safe]
        corrupted = [self._corrupted(passage, donor, rng) for passage, donor in zip(exam, donors(exam), strict=True)]
        self._exam = [self._task(passage, good=True) for passage in (*exam, *safe)]
        self._exam += [self._task(passage, good=False) for passage in (*filter(None, corrupted), *unsafe)]

    def draw(self, passages: Sequence[Passage], rng: random.Random) -> list[Task]:
        tasks: list[Task] = []
        for passage, donor in zip(passages, donors(passages), strict=True):
            if rng.random() < self._config.good_share:
                # As many of the labelled ones as of the bad, or what they have in common would be a sign.
                labelled = self._safe and rng.random() < self._config.unsafe_share
                tasks.append(self._task(rng.choice(self._safe) if labelled else passage, good=True))
            elif self._unsafe and rng.random() < self._config.unsafe_share:
                tasks.append(self._task(rng.choice(self._unsafe), good=False))
            elif (corrupted := self._corrupted(passage, donor, rng)) is not None:
                tasks.append(self._task(corrupted, good=False))
        return tasks

    async def rewards(
        self, exercises: Sequence[Task], answers: Sequence[Sequence[Sequence[str]]], seed: int
    ) -> list[list[list[Reward]]]:
        written = [
            [self._read(task, answer) for answer in only] for task, (only,) in zip(exercises, answers, strict=True)
        ]
        repairs = [
            (task.passage, text)
            for task, texts in zip(exercises, written, strict=True)
            for text in texts
            if not task.good
        ]
        grades = iter(await _grades(self._grader, repairs, seed))
        earned: list[list[list[Reward]]] = []
        for task, texts in zip(exercises, written, strict=True):
            suffix = task.passage.suffix
            if task.good:
                earned.append([[copied(text, suffix) for text in texts]])
                continue
            rewards: list[Reward] = []
            for text in texts:
                quality, safety = next(grades)
                rewards.append(repaired(text, suffix, quality=quality, safety=safety, weights=self._weights))
            earned.append([rewards])
        return earned

    async def examine(self, teacher: Respondent) -> Marks:
        answers = await teacher.texts([task.prompts[0] for task in self._exam], max_tokens=self.max_tokens)
        rows = [(task, self._read(task, answer)) for task, (answer,) in zip(self._exam, answers, strict=True)]
        marks = {"copies": mean([copied(text, task.passage.suffix) for task, text in rows if task.good])}
        repairs = [(task.passage, text) for task, text in rows if not task.good]
        if not repairs:
            return marks
        grades = await _grades(self._examiner, repairs, self._config.seed)
        return {**marks, **repair_marks(repairs, grades)}

    def _read(self, task: Task, answer: str) -> str:
        return self._rewriting.read(answer, task.passage.prefix, task.passage.suffix)

    def _corrupted(self, passage: Passage, donor: str, rng: random.Random) -> Passage | None:
        corrupted = corrupt(passage.suffix, donor, rng, self._config.corruptions)
        return Passage(passage.prefix, corrupted[1]) if corrupted else None

    def _task(self, passage: Passage, *, good: bool) -> Task:
        prompt = self._rewriting.prompt(passage.prefix, passage.suffix)
        return Task("copy" if good else "repair", (prompt,), passage, good)


Grade = tuple[float | None, float | None]
"""Quality against what was given, and safety."""


async def _grades(grader: Grader, repairs: Sequence[tuple[Passage, str]], seed: int) -> list[Grade]:
    quality = await grader.preferred([(passage.prefix, text, passage.suffix) for passage, text in repairs], seed)
    safety = await grader.safe([(passage.prefix, text) for passage, text in repairs], seed + 1)
    return list(zip(quality, safety, strict=True))


def repair_marks(repairs: Sequence[tuple[Passage, str]], grades: Sequence[Grade]) -> dict[str, Estimate]:
    """Of repairs with their grades; one that has none is left out of the mean that it is missing in."""
    columns = {
        "repairs preferred to what was given": [quality for quality, _ in grades if quality is not None],
        "repairs safe": [safety for _, safety in grades if safety is not None],
        "repairs' faithfulness": [faithfulness(text, passage.suffix) for passage, text in repairs],
        "repairs' length": [length(text, passage.suffix) for passage, text in repairs],
        "repairs that change nothing": [copied(text, passage.suffix) for passage, text in repairs],
        "repairs empty": [float(not text.split()) for _, text in repairs],
    }
    return {name: mean(values) for name, values in columns.items() if values}
