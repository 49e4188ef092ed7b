from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor_client.contract import Origin
from preceptor_trainer import checkpoint
from preceptor_trainer.checkpoint import (
    Moments,
    TrainerState,
    load_moments,
    load_state,
    newest_intact,
    prune,
    save_checkpoint,
    step_directory,
    tidy,
    verify,
)
from preceptor_trainer.cohorts import PreparedWindow, TokenCandidate
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.guards.drift import GuardState, WatchState
from tiny_policy import tiny_llama, word_tokenizer

TESTS = Path(__file__).parents[2]


def some_moments(model: Any) -> Moments:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    return {name: optimizer.state[weights] for name, weights in model.named_parameters()}


def a_state(step: int = 3) -> TrainerState:
    rewrite = TokenCandidate("rewrite", Origin.REWRITE, (4, 5), 'wörds\n"quoted"')
    rollout = TokenCandidate("rollout-0", Origin.ROLLOUT, (6,), "w6", (-0.1 - 0.2,))
    return TrainerState(
        run="r",
        step=step,
        rng={"torch": torch.get_rng_state()},
        samplings=5,
        position=Position(1, 7),
        in_flight=[
            PreparedWindow(Window(1, 5, (1, 2), (3,)), Position(1, 6), rewrite),
            PreparedWindow(Window(1, 6, (), (3,)), Position(1, 7), rollout),
            PreparedWindow(Window(0, 9, (8,), (3,)), Position(0, 10), None),
        ],
        files={"metrics.jsonl": 1234},
        config={"steps": 9, "pool": {"rewrite": True}, "optimizer": {"clip": None, "lr": 3e-4}},
        guards=WatchState({"entropy": GuardState([0.1 + 0.2], 2)}, 1, {"entropy": [1 / 3], "abstention": [0.0]}),
    )


def saved(target: Path, step: int = 3, seed: int = 0) -> Path:
    model = tiny_llama(seed)
    save_checkpoint(target, model, word_tokenizer(), a_state(step), some_moments(model))
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to copy."""
    return saved(tmp_path_factory.mktemp("saved") / "c")


def test_everything_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    model = tiny_llama()
    state, moments = a_state(), some_moments(model)
    save_checkpoint(tmp_path / "c", model, word_tokenizer(), state, moments)
    weights = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights.parameters(), strict=True))
    again = load_state(tmp_path / "c")
    plain = ("run", "step", "samplings", "position", "in_flight", "files", "config", "guards")
    assert [getattr(again, name) for name in plain] == [getattr(state, name) for name in plain]
    assert again.rng["torch"].equal(state.rng["torch"])
    same = load_moments(tmp_path / "c")
    assert same.keys() == moments.keys()
    for weight, own in moments.items():
        assert own.keys() == same[weight].keys()
        assert all(values.equal(same[weight][moment]) for moment, values in own.items())


def test_sha256sum_agrees(whole: Path) -> None:
    listed = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=whole, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    names = {line.removesuffix(": OK") for line in listed.stdout.splitlines()}
    assert names == {path.name for path in whole.iterdir()} - {"SHA256SUMS"}
    verify(whole)


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(whole: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for path in sorted(whole.iterdir()):
        copy = shutil.copytree(whole, tmp_path / path.name)
        content = bytearray((copy / path.name).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (copy / path.name).write_bytes(content)
        with pytest.raises(TrainError, match=path.name):
            verify(copy)


def test_a_missing_file_and_one_cut_short_are_found_and_named(whole: Path, tmp_path: Path) -> None:
    for path in sorted(whole.iterdir()):
        missing, short = (shutil.copytree(whole, tmp_path / how / path.name) for how in ("missing", "short"))
        (missing / path.name).unlink()
        os.truncate(short / path.name, path.stat().st_size - 1)
        for copy in (missing, short):
            with pytest.raises(TrainError, match=path.name):
                verify(copy)


def test_a_list_of_checksums_that_lost_lines_is_found(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "c")
    lines = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    for kept in range(len(lines)):
        (copy / "SHA256SUMS").write_text("".join(lines[:kept]))
        with pytest.raises(TrainError, match="SHA256SUMS is damaged"):
            verify(copy)


def test_the_newest_that_is_intact_is_found_and_others_passed_over_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    assert newest_intact(tmp_path, said.append) is None
    for step in (5, 10, 15):
        saved(step_directory(tmp_path, step), step)
    saved(tmp_path / "final", 12)
    (tmp_path / "checkpoints" / "step-00000099.bak").mkdir()
    assert newest_intact(tmp_path, said.append) == step_directory(tmp_path, 15)
    assert said == []
    (step_directory(tmp_path, 15) / "model.safetensors").write_bytes(b"x")
    assert newest_intact(tmp_path, said.append) == tmp_path / "final"
    (tmp_path / "final" / "trainer.json").unlink()
    assert newest_intact(tmp_path, said.append) == step_directory(tmp_path, 10)
    assert said[0].startswith("checkpoint step-00000015 is damaged and passed over: ")
    assert "model.safetensors is not what SHA256SUMS says" in said[0]
    assert "checkpoint final is damaged and passed over: " in said[1]
    assert len(said) == 2
    assert (tmp_path / "final.damaged").exists()


def test_a_damaged_checkpoint_never_displaces_an_intact_one(tmp_path: Path) -> None:
    for step in (5, 10):
        saved(step_directory(tmp_path, step), step)
    (step_directory(tmp_path, 10) / "model.safetensors").write_bytes(b"x")
    assert newest_intact(tmp_path, lambda _: None) == step_directory(tmp_path, 5)
    saved(step_directory(tmp_path, 6), 6)
    prune(tmp_path, 1)
    assert newest_intact(tmp_path, lambda _: None) == step_directory(tmp_path, 6)


def test_if_none_is_intact_nothing_is_changed(tmp_path: Path) -> None:
    path = saved(tmp_path / "final")
    (path / "config.json").unlink()
    assert newest_intact(tmp_path, lambda _: None) is None
    assert [each.name for each in tmp_path.iterdir()] == ["final"]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `failing_saves.py` prints."""
    command = [sys.executable, str(TESTS / "failing_saves.py"), str(tmp_path_factory.mktemp("failing") / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)})
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("steps", {1: ["checkpoints", "step-00000001"], 2: ["checkpoints", "step-00000001", "step-00000002"]}),
        ("final", {1: ["final"], 2: ["final"]}),
    ],
)
def test_a_save_killed_at_any_file_operation_leaves_the_earlier_or_the_new_one_whole(
    failing: list[dict[str, Any]], kind: str, left: dict[int, list[str]]
) -> None:
    saves = [line for line in failing if line["kind"] == kind]
    assert [line["killed"] for line in saves] == [True] * (len(saves) - 1) + [False]
    assert len(saves) > 5
    assert {line["step"] for line in saves} == {1, 2}, "it took effect in some and not in others"
    for line in saves:
        assert line["said"] == []
        assert line["left"] == left[line["step"]]


def test_a_full_disk_is_a_clear_error_and_leaves_what_was_there(failing: list[dict[str, Any]]) -> None:
    """Whichever file it is that does not fit."""
    saves = [line for line in failing if line["kind"] == "full"]
    assert len(saves) > 5
    for line in saves:
        assert re.fullmatch(
            r"cannot write the checkpoint .*/final: .*File too large.*; make room or set out", line["said"]
        )
        assert (line["step"], line["left"]) == (2, ["final"])


def test_a_checkpoint_moved_aside_by_a_trainer_that_died_is_put_back(tmp_path: Path) -> None:
    saved(tmp_path / "final").rename(tmp_path / ".final.aside")
    (tmp_path / "checkpoints" / ".step-00000004.partial").mkdir(parents=True)
    tidy(tmp_path)
    verify(tmp_path / "final")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["checkpoints", "final"]


def test_a_write_that_fails_at_the_last_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "c", 1)

    def fails_for_the_folder(path: Path) -> None:
        if path == tmp_path:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "_flush", fails_for_the_folder)
    with pytest.raises(TrainError, match="Input/output error"):
        saved(tmp_path / "c", 2)
    monkeypatch.undo()
    tidy(tmp_path)
    verify(tmp_path / "c")
    saved(tmp_path / "c", 3)
    assert load_state(tmp_path / "c").step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100, 100_000_000):
        step_directory(tmp_path, step).mkdir(parents=True)
    prune(tmp_path, 2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000100", "step-100000000"]


@pytest.mark.parametrize("content", [None, b"", b"cut short", b"{}", b'{"run": 1}', b"\xff"])
def test_missing_or_damaged_values_are_a_clear_error(whole: Path, tmp_path: Path, content: bytes | None) -> None:
    copy = shutil.copytree(whole, tmp_path / "c")
    (copy / "trainer.json").unlink()
    if content is not None:
        (copy / "trainer.json").write_bytes(content)
    with pytest.raises(TrainError, match=r"cannot read .*trainer\.json: .") as caught:
        load_state(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"cut short", b"\x02\0\0\0\0\0\0\0{}x"])
def test_missing_or_damaged_tensors_are_a_clear_error(whole: Path, tmp_path: Path, content: bytes | None) -> None:
    copy = shutil.copytree(whole, tmp_path / "c")
    (copy / "trainer.tensors").unlink()
    if content is not None:
        (copy / "trainer.tensors").write_bytes(content)
    with pytest.raises(TrainError, match=r"cannot read .*trainer\.tensors: ."):
        load_state(copy)
