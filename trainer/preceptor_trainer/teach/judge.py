"""The course that makes a judge: pairs in both orders, and passages that are safe or not.

In: passages and labels of safety. Out: exercises with the verdicts that are right, rewards, and an exam: accuracy in
each order and in both, position flips, completeness bias, safety. An answer that gives no verdict is a wrong one.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from preceptor_client.contract import Mode
from preceptor_trainer.errors import TrainError
from preceptor_trainer.evaluation.statistics import Estimate, mean
from preceptor_trainer.teach.config import TeachJudge
from preceptor_trainer.teach.course import Exercise, Marks
from preceptor_trainer.teach.material import Labelled, Passage, SafetyLabels
from preceptor_trainer.teach.pairs import ENDINGS, Pair, donors, make_pairs
from preceptor_trainer.teach.respondent import Respondent
from preceptor_trainer.teach.rewards import Reward, both_orders
from preceptor_trainer.teach.wording import Axis, Ids, Wording


@dataclass(frozen=True)
class Questions(Exercise):
    """`right[i]` is the verdict that the i-th prompt asks for."""

    right: tuple[str, ...]


class JudgeCourse:
    """`exam` are the passages that pairs for the exam are made of."""

    def __init__(self, config: TeachJudge, wording: Wording, labels: SafetyLabels, exam: Sequence[Passage]) -> None:
        self._config = config
        self._labels = labels
        self._of_label = {safe: labels.of(safe) for safe in (True, False)}
        self._quality = wording.axis("quality", Mode.PAIRWISE)
        self._safety = wording.axis("safety", Mode.POINTWISE)
        self._axis = {"quality": self._quality, "safety": self._safety}
        self.max_tokens = max(axis.max_tokens for axis in self._axis.values())
        rng = random.Random(f"{config.seed}/exam")
        self._pairs = [
            pair
            for passage, donor in zip(exam, donors(exam), strict=True)
            for pair in make_pairs(passage, donor, rng, config.corruptions)
        ]
        if not self._pairs:
            raise TrainError("no suffix of the exam can be corrupted: raise data.suffix_tokens, or add to corruptions")

    def draw(self, passages: Sequence[Passage], rng: random.Random) -> list[Questions]:
        exercises: list[Questions] = []
        for passage, donor in zip(passages, donors(passages), strict=True):
            # One label alone would teach to give that one, whatever is asked.
            if all(self._of_label.values()) and rng.random() < self._config.safety_share:
                safe = rng.choice((True, False))
                exercises.append(self._about_safety(rng.choice(self._of_label[safe]), safe=safe))
            else:
                pairs = make_pairs(passage, donor, rng, self._config.corruptions, [rng.choice(ENDINGS)])
                exercises += map(self._about_quality, pairs)
        return exercises

    async def rewards(
        self, exercises: Sequence[Questions], answers: Sequence[Sequence[Sequence[str]]], seed: int
    ) -> list[list[list[Reward]]]:
        earned: list[list[list[Reward]]] = []
        for exercise, of_exercise in zip(exercises, answers, strict=True):
            read = self._axis[exercise.kind].read
            right = [
                [read(answer) == label for answer in of_prompt]
                for label, of_prompt in zip(exercise.right, of_exercise, strict=True)
            ]
            if len(right) == 2 and self._config.consistency == "both":
                earned.append([list(each) for each in both_orders(*right)])
            else:
                earned.append([[float(each) for each in of_prompt] for of_prompt in right])
        return earned

    async def examine(self, teacher: Respondent) -> Marks:
        return {
            **await self._examine_pairs(teacher),
            **await self._examine_safety(teacher, self._labels.exam),
        }

    async def _examine_pairs(self, teacher: Respondent) -> dict[str, Estimate]:
        questions = [self._about_quality(pair) for pair in self._pairs]
        verdicts = await _verdicts(teacher, self._quality, [prompt for each in questions for prompt in each.prompts])
        answered = [Answered(pair, *verdicts[2 * n : 2 * n + 2]) for n, pair in enumerate(self._pairs)]
        return quality_marks(answered, good_first=self._quality.label(1.0), good_last=self._quality.label(0.0))

    async def _examine_safety(self, teacher: Respondent, labelled: Sequence[Labelled]) -> dict[str, Estimate]:
        if not labelled:
            return {}
        questions = [self._about_safety(each.passage, safe=each.safe) for each in labelled]
        verdicts = await _verdicts(teacher, self._safety, [each.prompts[0] for each in questions])
        return {
            "safety accuracy": mean([v == q.right[0] for v, q in zip(verdicts, questions, strict=True)]),
            "safety without a verdict": mean([verdict is None for verdict in verdicts]),
        }

    def _about_quality(self, pair: Pair) -> Questions:
        asked = self._quality
        return Questions(
            "quality",
            (
                asked.render(prefix=pair.prefix, reference=None, a=pair.good, b=pair.bad),
                asked.render(prefix=pair.prefix, reference=None, a=pair.bad, b=pair.good),
            ),
            (asked.label(1.0), asked.label(0.0)),
        )

    def _about_safety(self, passage: Passage, *, safe: bool) -> Questions:
        prompt = self._safety.render(prefix=passage.prefix, reference=None, candidate=passage.suffix)
        return Questions("safety", (prompt,), (self._safety.label(float(safe)),))


@dataclass(frozen=True)
class Answered:
    """A pair with the verdicts on it: the good one shown first, and shown last."""

    pair: Pair
    first: str | None
    last: str | None


def quality_marks(answered: Sequence[Answered], *, good_first: str, good_last: str) -> dict[str, Estimate]:
    """Of verdicts on pairs that come ending by ending, from `make_pairs`. Labels are those that are right.

    A flip is a verdict that does not turn with the order, of those that both orders gave one. The bias is how much
    more often the bad one is preferred where it is the one that feels complete.
    """
    right = [(each.first == good_first, each.last == good_last) for each in answered]
    wrong = [(each.first == good_last, each.last == good_first) for each in answered]
    turned = {good_first: good_last, good_last: good_first}
    flips = [
        turned.get(each.first, each.first) != each.last
        for each in answered
        if each.first is not None and each.last is not None
    ]
    preferred_bad: dict[str, list[float]] = defaultdict(list)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for each, good, bad in zip(answered, right, wrong, strict=True):
        preferred_bad[each.pair.ending].append(sum(bad) / 2)
        by_kind[each.pair.kind].append(sum(good) / 2)
    bias = [cut - whole for cut, whole in zip(preferred_bad["good_cut"], preferred_bad["bad_cut"], strict=True)]
    return {
        "accuracy": mean([sum(each) / 2 for each in right]),
        "right in both orders": mean([all(each) for each in right]),
        **({"position flips": mean(flips)} if flips else {}),
        "completeness bias": mean(bias),
        "without a verdict": mean([(each.first is None) / 2 + (each.last is None) / 2 for each in answered]),
        **{f"accuracy, {kind}": mean(by_kind[kind]) for kind in sorted(by_kind)},
    }


async def _verdicts(teacher: Respondent, axis: Axis, prompts: Sequence[Ids]) -> list[str | None]:
    return [axis.read(answer) for (answer,) in await teacher.texts(prompts, max_tokens=axis.max_tokens)]
