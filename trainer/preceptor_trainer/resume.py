"""From a run's folder to where the run goes on.

In: the configuration, its `out` folder, and how to start. Out: the state of the newest checkpoint that is intact, or
None for a beginning; the folder then holds only what belongs to that state. Guarantees: no checkpoint is removed unless
`restart` asks for it, and of the logs only what came after the one that is resumed from, or all where there is none; a
configuration that would make another run of it (other documents, model, seed or controls) is refused. Raises
`TrainError`. Blocks for the disk.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import AutoModelForCausalLM

from preceptor_trainer.checkpoint import TrainerState, load_moments, load_state, newest_intact, tidy
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.ledger import LEDGER_FILE, cut_back
from preceptor_trainer.telemetry import METRICS_FILE

Start = Literal["fresh", "resume", "restart"]

_FIXED = ("run", "seed", "model", "data", "controls")
"""What makes a run this one: the same weights to start from, and the same windows in the same order, with the same
controls."""
_FREE = {"data": {"max_document_chars", "bad_documents"}}
_NAME_FILE = "run.json"


class RunConfig(Protocol):
    """The configuration of something that can be resumed: a pydantic model with these keys."""

    @property
    def out(self) -> Path: ...

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]: ...


def find_start(config: RunConfig, start: Start, say: Callable[[str], None]) -> tuple[Path, TrainerState] | None:
    """The checkpoint to go on from with its state; None to begin. `say` is told what was skipped and what changed."""
    out = config.out
    tidy(out)
    written = [path for path in (*sorted((out / "checkpoints").glob("step-*")), out / "final") if path.exists()]
    if start == "fresh" and written:
        raise TrainError(
            f"{out} holds a run already ({written[-1].name}): go on with it by --resume, replace it by --restart, "
            "or set out to another folder"
        )
    if start == "resume":
        checkpoint = newest_intact(out, say)
        if checkpoint is not None:
            state = load_state(checkpoint)
            _compare(state.config, config.model_dump(mode="json"), say)
            for name, length in state.files.items():
                cut_back(out / name, length)
            say(f"going on from {checkpoint}, step {state.step}")
            return checkpoint, state
        if written:
            raise TrainError(f"no checkpoint in {out} is intact: begin again by --restart")
        say(f"no checkpoint in {out} yet: beginning")
    for path in written:
        shutil.rmtree(path)
    for name in (METRICS_FILE, LEDGER_FILE):
        (out / name).unlink(missing_ok=True)
    return None


def restore(
    learner: Learner, checkpoint: Path, state: TrainerState, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Weights, optimizer and random numbers as they were. The reference model stays what the run began with.

    `weights` are those of the checkpoint where its model is not built as the learner's is.
    """
    if weights is None:
        weights = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=learner.model.dtype).state_dict()
    learner.restore(weights, load_moments(checkpoint), state.step)
    torch.set_rng_state(state.rng["torch"])
    if "cuda" in state.rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.rng["cuda"])


def name_in_redis(out: Path, run: str) -> str:
    """What Redis knows the run in `out` by: unlike any other run's, and the same after a resume."""
    path = out / _NAME_FILE
    with suppress(FileNotFoundError, ValueError, LookupError, TypeError):  # or damaged: a new name is never mistaken
        return str(json.loads(path.read_text(encoding="utf-8"))["name"])
    name = f"{run[:96]}-{secrets.token_hex(4)}"
    path.write_text(json.dumps({"name": name}) + "\n", encoding="utf-8")
    return name


def _compare(before: dict[str, Any], now: dict[str, Any], say: Callable[[str], None]) -> None:
    changes = dict(_changes(before, now))
    for key, (old, new) in changes.items():
        section, _, field = key.partition(".")
        if section in _FIXED and field not in _FREE.get(section, ()):
            raise TrainError(
                f"{key} was {old!r} when the checkpoint was written and is {new!r} now, which makes it another run: "
                "set it back, or begin in another folder"
            )
        say(f"{key} was {old!r}, is {new!r} from here on")


def _changes(before: Any, now: Any, path: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for key in dict.fromkeys([*before, *now])
            for change in _changes(before.get(key), now.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if before == now else [(path, (before, now))]
