"""Checkpoints: Hugging Face directories that transformers and vLLM load unchanged, with a side file for the trainer.

    <out>/checkpoints/step-00000100/{config.json, model.safetensors, tokenizer..., trainer_state.pt}
    <out>/final/                    the same

In: the policy, its tokenizer and a `TrainerState`. Out: a directory that is there in full or not at all: it is
written beside its place, flushed to the disk and renamed. The newest `keep` stay. Blocks for the disk: call it in a
thread.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from preceptor_trainer.errors import TrainError

STATE_FILE = "trainer_state.pt"


@dataclass(frozen=True)
class TrainerState:
    """What a run needs besides the weights to go on. Plain values and tensors: read back without pickled code."""

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
        torch.save(asdict(state), partial / STATE_FILE)
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
    try:
        return TrainerState(**torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise TrainError(f"cannot read {checkpoint / STATE_FILE}: {error}") from error


def step_directory(out: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return out / "checkpoints" / f"step-{step:08d}"


def prune(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in sorted((out / "checkpoints").glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
