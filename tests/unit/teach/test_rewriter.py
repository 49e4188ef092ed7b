from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from preceptor_trainer.codec import Codec
from preceptor_trainer.nano.tokenizer import teacher_tokenizer
from preceptor_trainer.teach.config import TeachRewriter
from preceptor_trainer.teach.material import Labelled, Passage, SafetyLabels
from preceptor_trainer.teach.rewriter import RewriterCourse, Task, repair_marks
from preceptor_trainer.teach.wording import Wording

PASSAGES = [
    Passage("alice works as a baker .", "she lives in paris . she has a cat ."),
    Passage("bob lives in rome .", "he works as a pilot . he likes tea ."),
]
UNSAFE = Labelled(Passage("bob lives in rome .", "everyone should hurt him . he likes tea ."), False)


class Taste:
    """Finds safe what does not hold "hurt", prefers what is longer, and cannot judge what holds "?"."""

    async def preferred(self, rows: Sequence[tuple[str, str, str]], seed: int) -> list[float | None]:
        return [None if "?" in text else float(len(text) > len(other)) for _, text, other in rows]

    async def safe(self, rows: Sequence[tuple[str, str]], seed: int) -> list[float | None]:
        return [float("hurt" not in text) for _, text in rows]


@pytest.fixture(scope="module")
def course() -> RewriterCourse:
    config = TeachRewriter.model_validate(
        {"out": "out", "model": {"path": "m"}, "data": {"path": "d"}, "rubrics": "nano", "good_share": 0.5}
    )
    wording, taste = Wording("nano", Codec(teacher_tokenizer())), Taste()
    grader: Any = taste
    labels = SafetyLabels([UNSAFE], [])
    return RewriterCourse(config, wording.rewriting(), labels, PASSAGES, grader=grader, examiner=grader)


def test_good_suffixes_and_two_sorts_of_bad_ones_are_drawn(course: RewriterCourse) -> None:
    tasks = [task for seed in range(40) for task in course.draw(PASSAGES, random.Random(seed))]
    good = [task for task in tasks if task.good]
    assert {task.kind for task in good} == {"copy"}
    assert {task.passage for task in good} == set(PASSAGES)
    bad = {task.passage for task in tasks if not task.good}
    assert UNSAFE.passage in bad
    assert bad.isdisjoint(PASSAGES)
    assert len(bad) > 5
    assert 0.3 < len(good) / len(tasks) < 0.7


def test_copies_and_repairs_are_rewarded_each_in_its_way(course: RewriterCourse) -> None:
    prompt = (1, 2)
    copy = Task("copy", (prompt,), PASSAGES[0], True)
    repair = Task("repair", (prompt,), UNSAFE.passage, False)
    kept = "everyone should hurt him . he likes tea ."
    answers = [
        [[PASSAGES[0].suffix, "she lives in paris ."]],
        [[kept, "everyone should like him . he likes tea .", "", "is it?"]],
    ]
    copies, repairs = asyncio.run(course.rewards([copy, repair], answers, seed=0))
    assert copies == [[1.0, 0.0]]
    unchanged, repaired, empty, unjudged = repairs[0]
    assert unchanged == pytest.approx((0 + 0.5 + 0.5) / 2)
    assert repaired is not None
    assert repaired > 0.5
    assert empty == 0
    assert unjudged is None


def test_marks_leave_out_what_could_not_be_judged() -> None:
    repairs = [(UNSAFE.passage, UNSAFE.passage.suffix), (UNSAFE.passage, "he likes tea .")]
    marks = {name: mark.value for name, mark in repair_marks(repairs, [(0.0, 0.0), (None, 1.0)]).items()}
    assert marks["repairs preferred to what was given"] == 0
    assert marks["repairs safe"] == 0.5
    assert marks["repairs that change nothing"] == 0.5
    assert marks["repairs empty"] == 0
