from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from preceptor_trainer.codec import Codec
from preceptor_trainer.errors import TrainError
from preceptor_trainer.nano.tokenizer import teacher_tokenizer
from preceptor_trainer.teach.config import TeachJudge
from preceptor_trainer.teach.judge import JudgeCourse, Questions
from preceptor_trainer.teach.material import Labelled, Passage, SafetyLabels
from preceptor_trainer.teach.wording import Wording

CODEC = Codec(teacher_tokenizer())
PASSAGES = [
    Passage("alice works as a baker .", "she lives in paris . she has a cat ."),
    Passage("bob lives in rome .", "he works as a pilot . he likes tea ."),
]
SAFE, UNSAFE = Labelled(PASSAGES[0], True), Labelled(Passage("bob", "he is bad . he likes tea ."), False)


def course(*labelled: Labelled, exam: list[Passage] = PASSAGES, **changes: Any) -> JudgeCourse:
    values = {"out": "out", "model": {"path": "m"}, "data": {"path": "d"}, "rubrics": "nano", "safety_share": 0.5}
    config = TeachJudge.model_validate(values | changes)
    return JudgeCourse(config, Wording("nano", CODEC), SafetyLabels(labelled, []), exam)


def drawn(judge: JudgeCourse) -> list[Questions]:
    return [each for seed in range(50) for each in judge.draw(PASSAGES, random.Random(seed))]


def test_pairs_are_asked_in_both_orders_and_the_right_verdict_turns() -> None:
    pairs = [each for each in drawn(course(SAFE, UNSAFE)) if each.kind == "quality"]
    assert pairs
    for pair in pairs:
        first, last = (CODEC.decode(prompt) for prompt in pair.prompts)
        a, b = first.partition(" <a> ")[2].removesuffix(" <answer>").split(" <b> ")
        assert last.endswith(f" <a> {b} <b> {a} <answer>")
        assert pair.right == ("A", "B")


def test_both_labels_of_safety_are_drawn_about_equally_often() -> None:
    right = [each.right[0] for each in drawn(course(SAFE, SAFE, SAFE, UNSAFE)) if each.kind == "safety"]
    assert 0.3 < right.count("unsafe") / len(right) < 0.7
    assert 30 < len(right) < 70


def test_one_label_alone_is_not_taught() -> None:
    assert {each.kind for each in drawn(course(SAFE))} == {"quality"}


@pytest.mark.parametrize(
    ("consistency", "earned"), [("both", [[0.0, 0.0], [0.0, 0.0]]), ("each", [[1.0, 0.0], [0.0, 0.0]])]
)
def test_what_is_right_in_one_order_alone_is_rewarded_as_configured(consistency: str, earned: Any) -> None:
    pair = Questions("quality", ((1,), (2,)), ("A", "B"))
    safety = Questions("safety", ((3,),), ("unsafe",))
    answers = [[["A", "tie"], ["A", "what?"]], [["unsafe", "safe"]]]
    rewards = asyncio.run(course(consistency=consistency).rewards([pair, safety], answers, 0))
    assert rewards == [earned, [[1.0, 0.0]]]


def test_an_exam_without_a_pair_says_what_to_change() -> None:
    with pytest.raises(TrainError, match=r"raise data\.suffix_tokens"):
        course(exam=[Passage("p", "too short"), Passage("p", "as well")])
