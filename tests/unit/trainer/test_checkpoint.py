from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor_trainer import checkpoint
from preceptor_trainer.checkpoint import TrainerState, load_state, prune, save_checkpoint, step_directory
from preceptor_trainer.errors import TrainError


class NoTokenizer:
    """Saves nothing; real tokenizers are saved in the integration tests."""

    def save_pretrained(self, directory: Path) -> None:
        assert directory.is_dir()


def state(model: Any) -> TrainerState:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    return TrainerState(
        run="r",
        session="s",
        step=3,
        optimizer=optimizer.state_dict(),
        torch_rng=torch.get_rng_state(),
        samplings=5,
        stream_epoch=1,
        stream_documents=7,
        in_flight=["s-1-5", "s-1-6"],
    )


def test_weights_and_state_come_back_as_they_were(tiny_llama: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny_llama()
    saved = state(model)
    save_checkpoint(tmp_path / "c", model, NoTokenizer(), saved)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    again = load_state(tmp_path / "c")
    assert again.in_flight == saved.in_flight
    assert torch.equal(again.torch_rng, saved.torch_rng)
    torch.optim.AdamW(loaded.parameters()).load_state_dict(again.optimizer)
    assert torch.equal(again.optimizer["state"][0]["exp_avg"], saved.optimizer["state"][0]["exp_avg"])


def test_a_write_that_fails_leaves_the_earlier_checkpoint_as_it_was(
    tiny_llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = tiny_llama(0), tiny_llama(1)
    saved = state(model)
    save_checkpoint(tmp_path / "c", model, NoTokenizer(), saved)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(TrainError, match=r"cannot write the checkpoint .*No space left"):
        save_checkpoint(tmp_path / "c", other, NoTokenizer(), saved)
    monkeypatch.undo()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    save_checkpoint(tmp_path / "c", other, NoTokenizer(), saved)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        step_directory(tmp_path, step).mkdir(parents=True)
    prune(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000015", "step-00000100"]


@pytest.mark.parametrize("content", [None, b"", b"cut short", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_missing_or_damaged_state_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "trainer.safetensors").write_bytes(content)
    with pytest.raises(TrainError, match=r"cannot read .*trainer\.safetensors"):
        load_state(tmp_path)
