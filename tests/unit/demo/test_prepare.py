"""What containers are given to start from. The teacher in the cache is a stand-in: here it is only carried."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor_trainer.demo.plan import DemoFolder, DemoSize
from preceptor_trainer.demo.prepare import prepare_run
from preceptor_trainer.nano.teacher import Recipe, content_hash

SIZE = DemoSize(pretrain_documents=30, pretrain_steps=1, steps=1, cohorts_per_step=2, held_out=4)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    teacher = tmp_path / "cache" / f"nano-teacher-{content_hash(Recipe())}"
    teacher.mkdir(parents=True)
    (teacher / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "cache"


def prepare(root: Path, cache: Path, *, seed: int = 0) -> list[str]:
    """Prepares a run; returns the stages that took steps."""
    stages: list[str] = []
    prepare_run(root, cache, SIZE, seed=seed, progress=lambda stage, done, total: stages.append(stage))
    return stages


def test_servers_and_trainer_find_what_they_start_from(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "models"
    assert prepare(root, cache) == ["base model"]
    assert (root / "teacher" / "model.safetensors").read_bytes() == b"weights"
    folder = DemoFolder(root)
    for corpus in (folder.train_corpus, folder.held_out_corpus, folder.pretrain_corpus):
        assert corpus.is_file()
    base, policy = (AutoModelForCausalLM.from_pretrained(path) for path in (folder.run("base"), root / "policy"))
    assert torch.equal(base.lm_head.weight, policy.lm_head.weight)
    assert not policy.config.tie_word_embeddings, "vLLM would keep a copy of tied weights"


def test_a_second_time_everything_is_there(tmp_path: Path, cache: Path) -> None:
    prepare(tmp_path / "models", cache)
    assert prepare(tmp_path / "models", cache) == []


def test_another_seed_is_another_base_model(tmp_path: Path, cache: Path) -> None:
    prepare(tmp_path / "models", cache)
    assert prepare(tmp_path / "models", cache, seed=1) == ["base model"]


def test_what_was_cut_short_is_made_again(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "models"
    for name in ("teacher", "policy"):
        (root / f"{name}.partial").mkdir(parents=True)
    (root / "policy").mkdir()
    assert prepare(root, cache) == ["base model"]
    assert not list(root.glob("*.partial"))
