"""A real run of lm-evaluation-harness whose metric is the judge, by the task file that the docs show."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from preceptor_client.contract import Status
from preceptor_client.stack import Stack, judge_part
from preceptor_client.testing import FakePreceptor, score_by_hash
from preceptor_trainer.nano.text import CLEAN, document, text
from preceptor_trainer.nano.world import World
from tiny_policy import nano_policy

if TYPE_CHECKING:
    from conftest import TeacherServer

DOCS = Path(__file__).parents[2] / "docs" / "adapters.md"
DOCUMENTS = 12


def block(name: str) -> str:
    """The code block of the docs whose first line names the file."""
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with the task of the docs, its data set and its Python file."""
    (tmp_path / "my_judge.py").write_text(block("my_judge.py"))
    (tmp_path / "judged_qa.yaml").write_text(
        block("judged_qa.yaml").replace("questions.jsonl", f"{tmp_path}/questions.jsonl")
    )
    rng, world = random.Random(7), World.generate()
    documents = [document(world, rng, CLEAN, sentences=12) for _ in range(DOCUMENTS)]
    rows = [{"question": text(doc[:24]), "answer": text(doc[24:40])} for doc in documents]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def evaluate(tasks: Path) -> dict[str, Any]:
    model, tokenizer = nano_policy()
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu", max_length=64),
        tasks=["judged_qa"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    return dict(found)


def test_unjudged_answers_are_counted_and_left_out_of_the_mean(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(axis: str, prefix: str, answer: str) -> float | Status:
        score = score_by_hash(axis, prefix, "")
        return Status.FAILED if score < 0.4 else score

    with FakePreceptor(some).serve() as url:
        monkeypatch.setenv("PRECEPTOR_JUDGE_URL", url)
        found = evaluate(tasks)
    metrics = found["results"]["judged_qa"]
    scores = [sample["judge"] for sample in found["samples"]["judged_qa"] if "judge" in sample]
    assert 0 < len(scores) < DOCUMENTS
    assert metrics["judge_unjudged,judged"] == pytest.approx(1 - len(scores) / DOCUMENTS)
    assert metrics["judge,judged"] == pytest.approx(sum(scores) / len(scores))
    assert metrics["judge,judged"] >= 0.4


@pytest.mark.slow
def test_the_real_judge_is_a_metric(
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
    teacher_vllm: TeacherServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    part = judge_part(tmp_path_factory.mktemp("judge"), teacher_vllm.url, teacher_vllm.model)
    url = stack.start(part).part.url
    assert url is not None
    monkeypatch.setenv("PRECEPTOR_JUDGE_URL", url)
    metrics = evaluate(tasks)["results"]["judged_qa"]
    assert metrics["judge_unjudged,judged"] == 0.0
    assert metrics["judge,judged"] <= 0.25, "words at random lose against an answer"
