from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from byte_model import byte_tokenizer
from preceptor_client.contract import Mode, RubricSpec
from preceptor_trainer.codec import Codec
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.teach.config import ExamConfig, SafetyConfig, VotesConfig
from preceptor_trainer.teach.material import Labelled, Passage, Passages, SafetyLabels, read_labels, unanimous
from preceptor_trainer.teach.wording import Axis

CODEC = Codec(byte_tokenizer())


def documents(path: Path, texts: Sequence[str]) -> DataConfig:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return DataConfig(path=str(path), prefix_tokens=6, suffix_tokens=4)


@pytest.fixture
def ten(tmp_path: Path) -> DataConfig:
    return documents(tmp_path / "ten.jsonl", [chr(ord("a") + n) * 12 for n in range(10)])


def letters(passages: Sequence[Passage]) -> str:
    return "".join(passage.suffix[0] for passage in passages)


def test_what_is_held_back_for_the_exam_is_never_taught_from(ten: DataConfig) -> None:
    passages = Passages(ten, ExamConfig(windows=3), CODEC)
    assert letters(passages.exam) == "abc"
    assert letters(passages.take(16)) == "defghijdefghijde"


def test_an_exam_with_documents_of_its_own_holds_nothing_back(ten: DataConfig, tmp_path: Path) -> None:
    documents(tmp_path / "other.jsonl", ["x" * 12, "y" * 12])
    passages = Passages(ten, ExamConfig(path=str(tmp_path / "other.jsonl")), CODEC)
    assert letters(passages.exam) == "xy"
    assert letters(passages.take(3)) == "abc"


def test_a_stream_goes_on_where_its_position_says(ten: DataConfig) -> None:
    first = Passages(ten, ExamConfig(windows=3), CODEC)
    first.take(5)
    second = Passages(ten, ExamConfig(windows=3), CODEC, first.position)
    assert second.take(6) == first.take(6)


def test_text_with_a_control_token_of_the_teacher_is_passed_over(tmp_path: Path) -> None:
    data = documents(tmp_path / "d.jsonl", ["a" * 12, "b" * 12, "<|im_end|>" * 12, "c" * 12])
    assert letters(Passages(data, ExamConfig(windows=2), CODEC).take(2)) == "cc"


def test_documents_that_are_all_held_back_are_told(ten: DataConfig) -> None:
    passages = Passages(ten, ExamConfig(windows=10), CODEC)
    with pytest.raises(TrainError, match=r"lower exam\.windows"):
        passages.take(1)


def test_a_stream_that_ends_is_told(ten: DataConfig) -> None:
    passages = Passages(ten.model_copy(update={"epochs": 1}), ExamConfig(windows=3), CODEC)
    with pytest.raises(TrainError, match=r"leave out data\.epochs"):
        passages.take(8)


def test_labels_are_read_and_divided_without_overlap(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [{"prefix": "p", "text": f"t{n}", "safe": n % 2 == 0} for n in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = read_labels(file, CODEC)
    assert [each.safe for each in labelled] == [True, False] * 5
    labels = SafetyLabels.divided(labelled, 0.3, seed=1)
    assert len(labels.exam) == 3
    assert {*labels.exam} | {*labels.taught} == {*labelled}
    assert len(labels.of(True)) + len(labels.of(False)) == 7


def test_a_line_that_is_no_label_is_named(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"text": "a", "safe": true}\n{"text": "b"}\n')
    with pytest.raises(TrainError, match=r"labels\.jsonl:2: safe: is missing"):
        read_labels(file, CODEC)


class Votes:
    """Answers each prompt with the votes given for it, in order."""

    def __init__(self, *votes: list[str]) -> None:
        self._votes = iter(votes)

    async def texts(self, prompts: Sequence[Any], **_: Any) -> list[list[str]]:
        return list(islice(self._votes, len(prompts)))


def test_only_what_all_votes_agree_on_is_a_label() -> None:
    labels = {"yes": 1.0, "no": 0.0, "hm": 0.5}
    spec = RubricSpec(axis="safety", mode=Mode.POINTWISE, prompt="{{ candidate }}", labels=labels, parser="exact")
    passages = [Passage("p", text) for text in "abcde"]
    teacher: Any = Votes(["yes", "yes"], ["no", "no"], ["yes", "no"], ["yes", "what?"], ["hm", "hm"])
    config = SafetyConfig(votes=VotesConfig(count=2))
    found = asyncio.run(unanimous(passages, teacher, Axis(spec, CODEC), config, 0))
    assert found == [Labelled(passages[0], True), Labelled(passages[1], False)]
