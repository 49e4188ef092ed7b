"""Checkpoints: Hugging Face directories that transformers and vLLM load unchanged, with what the trainer needs to go
on exactly where it was.

    <out>/checkpoints/step-00000100/  config.json, model.safetensors, tokenizer...
                                      trainer.json         steps, stream, cohorts in flight, guards, configuration
                                      trainer.tensors      moments of the optimizer by weight, random number states
                                      SHA256SUMS           of every file, for `sha256sum -c`
    <out>/final/                      the same

In: the policy, its tokenizer, a `TrainerState` and the optimizer's moments, all of them whole: nothing in it depends
on how many ranks the run had. Out: a directory that is there in full or not at all: it is
written beside its place, flushed to the disk and renamed, and one that it replaces is moved aside first, where the
next look finds it should the trainer die in between. A flipped bit in any file is found by its checksum. No pickles.
Blocks for the disk: call it in a thread. One process at a time may write to `<out>`. Raises `TrainError`.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from preceptor_trainer.cohorts import PreparedWindow
from preceptor_trainer.data.stream import Position
from preceptor_trainer.errors import TrainError
from preceptor_trainer.growth import Growth
from preceptor_trainer.guards.drift import WatchState

VALUES_FILE = "trainer.json"
TENSORS_FILE = "trainer.tensors"
"""In the format of safetensors, but not under its name: vLLM takes every `*.safetensors` of a folder for weights."""
SUMS_FILE = "SHA256SUMS"
_MOMENTS, _RNG = "optimizer.", "rng."
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


Moments = Mapping[str, Mapping[str, torch.Tensor]]
"""Of an optimizer: name of a weight -> name of a moment -> its values."""


@dataclass(frozen=True)
class TrainerState:
    """What a run needs besides the weights and their moments to go on."""

    run: str
    step: int
    rng: dict[str, torch.Tensor]
    """States of random number generators, by name."""
    samplings: int
    """Calls to the policy engine so far: each has its own seed."""
    position: Position
    """Of the window stream, after the last window that was issued."""
    in_flight: list[PreparedWindow]
    """Issued and neither trained nor dropped: to be issued again."""
    files: dict[str, int]
    """Name in `<out>` -> bytes of it that belong to this state; what follows them was written later."""
    config: dict[str, Any]
    """The run's resolved configuration."""
    guards: WatchState = field(default_factory=WatchState)
    """What the drift guards remember."""
    growth: Growth | None = None
    """Where a controller of the candidates stands."""


class _Values(BaseModel):
    """`trainer.json`."""

    model_config = ConfigDict(extra="forbid")

    run: str
    step: int
    samplings: int
    position: Position
    in_flight: list[PreparedWindow]
    files: dict[str, int]
    config: dict[str, Any]
    guards: WatchState = Field(default_factory=WatchState)
    growth: Growth | None = None


def rng_states() -> dict[str, torch.Tensor]:
    """Of torch, for `TrainerState.rng`. Nothing else draws from a state of its own."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def save_checkpoint(target: Path, model: Any, tokenizer: Any, state: TrainerState, moments: Moments) -> None:
    """Write `target`, replacing what is there. If the disk does not take it, what was there stays."""
    partial, aside = _partial(target), _aside(target)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _write_state(partial, state, moments)
        _write_sums(partial)
        for path in [*partial.rglob("*"), partial]:
            _flush(path)
        if target.exists():
            if aside.exists():
                shutil.rmtree(aside)
            target.rename(aside)
        partial.rename(target)
        _flush(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not target.exists():
            aside.rename(target)
        # A disk that does not take it: SafetensorError and, by the tokenizers, a bare Exception are that as well.
        if isinstance(error, OSError | SafetensorError) or type(error) is Exception:
            raise TrainError(f"cannot write the checkpoint {target}: {error}; make room or set out") from error
        raise


def load_state(checkpoint: Path) -> TrainerState:
    """What `checkpoint` holds for the trainer, but for the moments."""
    path = checkpoint / VALUES_FILE
    try:
        values = _Values.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TrainError(f"cannot read {path}: {where + ': ' if where else ''}{first['msg']}") from error
    except OSError as error:
        raise TrainError(f"cannot read {path}: {error}") from error
    plain = {name: getattr(values, name) for name in _Values.model_fields}
    return TrainerState(**plain, rng=_tensors(checkpoint, _RNG))


def load_moments(checkpoint: Path) -> Moments:
    """The optimizer's moments that `checkpoint` holds."""
    moments: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _tensors(checkpoint, _MOMENTS).items():
        weight, _, moment = name.rpartition(".")
        moments.setdefault(weight, {})[moment] = tensor
    return moments


def verify(checkpoint: Path) -> None:
    """Raises `TrainError`, which names the file, if `checkpoint` is not what was written. Reads all of it."""
    sums = checkpoint / SUMS_FILE
    try:
        *lines, rest = sums.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{sums} cannot be read: {error}") from error
    matches = [_SUM_LINE.fullmatch(line) for line in lines]
    # The last line is that of the file that goes last, so that a list that is cut short shows.
    if rest or not matches or None in matches or not lines[-1].endswith(f"  {TENSORS_FILE}"):
        raise TrainError(f"{sums} is damaged")
    for match in matches:
        assert match is not None
        path = checkpoint / match[2]
        try:
            found = _sum(path)
        except (OSError, ValueError) as error:
            raise TrainError(f"{path} cannot be read: {error}") from error
        if found != match[1]:
            raise TrainError(f"{path} is not what {SUMS_FILE} says it was")


def newest_intact(out: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint of the highest step that is what was written. `say` is told of each that is passed over; it is
    renamed to `<name>.damaged`, unless none is intact: then nothing changes.
    """
    tidy(out)
    found = _of_steps(out)
    if (out / "final").exists():
        found.append(out / "final")
    damaged: list[Path] = []
    for path in sorted(found, key=_step_of, reverse=True):
        try:
            verify(path)
        except TrainError as error:
            say(f"checkpoint {path.name} is damaged and passed over: {error}")
            damaged.append(path)
        else:
            for each in damaged:  # so that none is taken for one of the newest, which are kept
                put = each.with_name(f"{each.name}.damaged")
                shutil.rmtree(put, ignore_errors=True)
                each.rename(put)
            return path
    return None


def tidy(out: Path) -> None:
    """Clear away what a trainer that died has left half done, and put back what it was replacing."""
    for folder in (out / "checkpoints", out):
        for partial in folder.glob(".*.partial"):
            shutil.rmtree(partial)
        for aside in folder.glob(".*.aside"):
            target = aside.with_name(aside.name.removeprefix(".").removesuffix(".aside"))
            if target.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(target)


def step_directory(out: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return out / "checkpoints" / f"step-{step:08d}"


def prune(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in _of_steps(out)[:-keep]:
        # Aside first: half removed, it is none that counts.
        shutil.rmtree(_partial(old), ignore_errors=True)
        shutil.rmtree(old.rename(_partial(old)))


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.aside")


def _of_steps(out: Path) -> list[Path]:
    """Oldest first."""
    paths = (path for path in (out / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))
    return sorted(paths, key=_step_of)


def _step_of(path: Path) -> float:
    """Of a step's directory or of `final`, which comes first when it does not say."""
    if path.name.startswith("step-"):
        return int(path.name.removeprefix("step-"))
    try:
        return load_state(path).step
    except TrainError:
        return math.inf


def _write_state(directory: Path, state: TrainerState, moments: Moments) -> None:
    values = _Values(**{name: getattr(state, name) for name in _Values.model_fields})
    (directory / VALUES_FILE).write_text(values.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tensors = {f"{_RNG}{name}": tensor for name, tensor in state.rng.items()}
    for weight, own in moments.items():
        tensors |= {f"{_MOMENTS}{weight}.{moment}": tensor for moment, tensor in own.items()}
    save_file(tensors, directory / TENSORS_FILE)


def _tensors(checkpoint: Path, kind: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with `kind`, which is left out."""
    path = checkpoint / TENSORS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            return {
                name.removeprefix(kind): file.get_tensor(name) for name in sorted(file.keys()) if name.startswith(kind)
            }
    except (OSError, SafetensorError) as error:
        raise TrainError(f"cannot read {path}: {error}") from error


def _write_sums(directory: Path) -> None:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    names = sorted((str(path.relative_to(directory)) for path in paths), key=lambda name: (name == TENSORS_FILE, name))
    lines = [f"{_sum(directory / name)}  {name}\n" for name in names]
    (directory / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
