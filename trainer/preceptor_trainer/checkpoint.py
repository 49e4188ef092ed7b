"""Checkpoints: Hugging Face directories that transformers and vLLM load unchanged, with a side file for the trainer.

    <out>/checkpoints/step-00000100/{config.json, model.safetensors, tokenizer..., trainer.safetensors}
    <out>/final/                    the same

In: the policy, its tokenizer and a `TrainerState`. Out: a directory that is there in full or not at all: it is
written beside its place, flushed to the disk and renamed. The newest `keep` stay. Blocks for the disk: call it in a
thread.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from preceptor_trainer.errors import TrainError

STATE_FILE = "trainer.safetensors"


@dataclass(frozen=True)
class TrainerState:
    """What a run needs besides the weights to go on: tensors, and plain values in the file's header. No pickles."""

    run: str
    session: str
    """Cohort ids are `<session>-<window id>`."""
    step: int
    optimizer: dict[str, Any]
    torch_rng: torch.Tensor
    samplings: int
    """Calls to the policy engine so far: each has its own seed."""
    stream_epoch: int
    stream_documents: int
    """Documents of the epoch that the stream has given out."""
    in_flight: list[str]
    """Ids of the cohorts admitted and not trained on: to be issued again."""


def save_checkpoint(target: Path, model: Any, tokenizer: Any, state: TrainerState) -> None:
    """Write `target`, replacing what is there. Raises `TrainError` if the disk does not take it."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _write_state(partial / STATE_FILE, state)
        for path in [*partial.iterdir(), partial]:
            _flush(path)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        _flush(target.parent)
    except OSError as error:
        raise TrainError(f"cannot write the checkpoint {target}: {error}") from error


def load_state(checkpoint: Path) -> TrainerState:
    """The side file of `checkpoint`. Raises `TrainError` if it is missing or damaged."""
    path = checkpoint / STATE_FILE
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()["values"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        torch_rng = tensors.pop("torch_rng")
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            parameter, _, moment = name.partition(".")
            moments.setdefault(int(parameter), {})[moment] = tensor
        optimizer = {"state": moments, "param_groups": values.pop("param_groups")}
        return TrainerState(**values, optimizer=optimizer, torch_rng=torch_rng)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError(f"cannot read {path}: {error}") from error


def step_directory(out: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return out / "checkpoints" / f"step-{step:08d}"


def prune(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in sorted((out / "checkpoints").glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def _write_state(path: Path, state: TrainerState) -> None:
    values = dict(vars(state))
    optimizer = values.pop("optimizer")
    tensors = {"torch_rng": values.pop("torch_rng")}
    for parameter, moments in optimizer["state"].items():
        tensors |= {f"{parameter}.{moment}": tensor for moment, tensor in moments.items()}
    save_file(tensors, path, metadata={"values": json.dumps(values | {"param_groups": optimizer["param_groups"]})})


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
