"""Where a run goes on from; whole runs that are killed and resumed are in integration/test_resume.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor_trainer.checkpoint import TrainerState, rng_states, save_checkpoint, step_directory
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import ComputeConfig, ObjectiveConfig, OptimizerConfig, TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.resume import find_start, name_in_redis, restore
from tiny_policy import tiny_llama, word_tokenizer


def config(out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "out": out,
            "steps": 5,
            "model": {"path": "m"},
            "data": {"path": "d"},
            "objective": {"name": "nll"},
            **changes,
        }
    )


def a_learner(seed: int) -> Learner:
    objective = make_objective(ObjectiveConfig(name="nll"), 4)
    return Learner(tiny_llama(seed), objective, OptimizerConfig(lr=1e-2), ComputeConfig(), 5)


def moved(learner: Learner) -> None:
    """One optimizer step on a made-up gradient."""
    for parameter in learner.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    learner.optimizer.step()
    learner.version += 1


def keep(out: Path, learner: Learner, files: dict[str, int], **changes: Any) -> Path:
    target = step_directory(out, learner.version)
    state = TrainerState(
        run="train",
        step=learner.version,
        rng=rng_states(),
        samplings=3,
        position=Position(0, 7),
        in_flight=[],
        files=files,
        config=config(out, **changes).model_dump(mode="json"),
    )
    save_checkpoint(target, learner.model, Codec(word_tokenizer()).tokenizer, state, learner.moments())
    return target


def test_weights_moments_and_random_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    learner = a_learner(1)
    moved(learner)
    keep(tmp_path, learner, {})
    drawn = torch.rand(3)
    moved(learner)
    found = find_start(config(tmp_path), "resume", lambda _: None)
    assert found is not None
    other = a_learner(2)
    restore(other, *found)
    assert other.version == 1
    assert torch.rand(3).equal(drawn)
    moved(other)
    for one, same in zip(learner.model.parameters(), other.model.parameters(), strict=True):
        assert one.equal(same)


def test_what_was_written_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "cohorts.jsonl"):
        (tmp_path / name).write_text('{"a": 1}\n{"b": 2}\n{"c"')
    keep(tmp_path, a_learner(1), {"metrics.jsonl": 9, "cohorts.jsonl": 18})
    find_start(config(tmp_path), "resume", lambda _: None)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"a": 1}\n'
    assert (tmp_path / "cohorts.jsonl").read_text() == '{"a": 1}\n{"b": 2}\n'


def test_a_used_folder_is_refused_with_a_word_on_what_to_do_with_it(tmp_path: Path) -> None:
    target = keep(tmp_path, a_learner(1), {})
    with pytest.raises(TrainError, match=r"step-00000000\): go on with it by --resume, replace it by --restart"):
        find_start(config(tmp_path), "fresh", lambda _: None)
    assert find_start(config(tmp_path), "restart", lambda _: None) is None
    assert not target.exists()


def test_a_resume_without_a_checkpoint_begins_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert find_start(config(tmp_path), "resume", said.append) is None
    assert said == [f"no checkpoint in {tmp_path} yet: beginning"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_no_intact_checkpoint_is_an_error_and_removes_nothing(tmp_path: Path) -> None:
    target = keep(tmp_path, a_learner(1), {})
    (target / "model.safetensors").write_bytes(b"x")
    with pytest.raises(TrainError, match=r"no checkpoint in .* is intact: begin again by --restart"):
        find_start(config(tmp_path), "resume", lambda _: None)
    assert target.exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [({"seed": 1}, "seed"), ({"data": {"path": "e"}}, r"data\.path"), ({"model": {"path": "n"}}, r"model\.path")],
)
def test_a_change_that_makes_it_another_run_is_refused(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    keep(tmp_path, a_learner(1), {})
    with pytest.raises(TrainError, match=f"^{key} was .* makes it another run"):
        find_start(config(tmp_path, **change), "resume", lambda _: None)


def test_any_other_change_is_said(tmp_path: Path) -> None:
    keep(tmp_path, a_learner(1), {})
    said: list[str] = []
    changed = config(tmp_path, steps=9, data={"path": "d", "bad_documents": "skip"})
    assert find_start(changed, "resume", said.append) is not None
    assert said[:2] == ["steps was 5, is 9 from here on", "data.bad_documents was 'stop', is 'skip' from here on"]


def test_secrets_are_in_no_checkpoint_and_no_message_and_may_change(tmp_path: Path) -> None:
    def with_secrets(secret: str, host: str) -> dict[str, Any]:
        return {"judge": {"redis_url": f"redis://:{secret}@{host}"}, "rewrite": {"api_key": secret}}

    target = keep(tmp_path, a_learner(1), {}, **with_secrets("hunter2", "one"))
    assert not any(b"hunter" in path.read_bytes() for path in target.iterdir())
    said: list[str] = []
    assert find_start(config(tmp_path, **with_secrets("hunter3", "one")), "resume", said.append) is not None
    assert len(said) == 1
    find_start(config(tmp_path, **with_secrets("hunter3", "two")), "resume", said.append)
    assert said[1] == "judge.redis_url was 'redis://:***@one', is 'redis://:***@two' from here on"


def test_a_run_keeps_its_name_in_redis_and_shares_it_with_no_other(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    name = name_in_redis(first, "sip")
    assert name == name_in_redis(first, "sip")
    assert name.startswith("sip-")
    assert name != name_in_redis(second, "sip")
    assert len(name_in_redis(first, "sip")) < 128
