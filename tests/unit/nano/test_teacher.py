"""The teacher's cache, on a recipe of two steps: what it learns is measured by the demo."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.nano import teacher
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.teacher import Recipe, TeacherAccuracy, content_hash, ensure_teacher, read_accuracy

TINY = Recipe(steps=2, quality=2, factuality=2, safety=2, rewrite=2)


@pytest.fixture(autouse=True)
def few_held_out_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes longer than two steps."""
    monkeypatch.setattr(teacher, "_HELD_OUT", 40)


def refuse(done: int, total: int) -> None:
    raise AssertionError("it was trained again")


def test_the_content_hash_changes_with_every_number_of_the_recipe() -> None:
    changed = [replace(TINY, **{name: getattr(TINY, name) + 1}) for name in TINY.__dataclass_fields__]
    assert len({content_hash(recipe) for recipe in (TINY, *changed)}) == 1 + len(changed)
    assert content_hash(TINY) == content_hash(replace(TINY))


def test_a_teacher_is_trained_once_and_loads_as_any_model(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    directory = ensure_teacher(tmp_path, recipe=TINY, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert directory == tmp_path / f"nano-teacher-{content_hash(TINY)}"
    assert ensure_teacher(tmp_path, recipe=TINY, progress=refuse) == directory
    assert [path.name for path in tmp_path.iterdir()] == [directory.name], "neither locks nor halves are left"

    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    assert model.config.vocab_size == len(tokenizer)
    question = tokenizer("<safety> she lives in rome . <answer>", return_tensors="pt")
    assert model(question["input_ids"]).logits.shape == (1, 7, len(tokenizer))

    accuracy = read_accuracy(directory)
    assert all(0 <= getattr(accuracy, name) <= 1 for name in TeacherAccuracy.__dataclass_fields__)


def test_a_teacher_that_begins_as_a_policy_is_one_of_its_own(tmp_path: Path) -> None:
    policies = [
        pretrain(write_corpus(tmp_path / "corpus", 30, name="pretrain"), tmp_path / str(seed), steps=0, seed=seed)
        for seed in range(2)
    ]
    hashes = {content_hash(TINY, policy) for policy in (None, *policies)}
    assert len(hashes) == 3
    directory = ensure_teacher(tmp_path / "cache", recipe=TINY, policy=policies[1])
    assert directory.name == f"nano-teacher-{content_hash(TINY, policies[1])}"
    taught, begun = (
        AutoModelForCausalLM.from_pretrained(each).model.layers[0].mlp.up_proj.weight
        for each in (directory, policies[1])
    )
    assert 0 < (taught - begun).abs().max() < 0.01, "two small steps from where it began"


def test_two_that_want_the_same_teacher_train_it_once(tmp_path: Path) -> None:
    barrier, told = threading.Barrier(2), []

    def want() -> Path:
        barrier.wait(timeout=60)
        return ensure_teacher(tmp_path, recipe=TINY, progress=lambda done, total: told.append(done))

    with ThreadPoolExecutor(2) as threads:
        first, second = [each.result() for each in [threads.submit(want), threads.submit(want)]]
    assert first == second
    assert told == [1, 2]


def test_a_training_that_breaks_off_leaves_no_teacher_and_the_next_one_is_whole(tmp_path: Path) -> None:
    def break_off(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_teacher(tmp_path, recipe=TINY, progress=break_off)
    assert not (tmp_path / f"nano-teacher-{content_hash(TINY)}").exists()
    assert (ensure_teacher(tmp_path, recipe=TINY) / "model.safetensors").exists()
