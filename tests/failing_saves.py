"""A process whose saves of a checkpoint fail: killed at every file operation in turn, or the disk does not take a file.

    python failing_saves.py <out>

saves one checkpoint in full and then lets one child after another (forks, so that torch is loaded once) save a second:
child n is killed by SIGKILL at its n-th operation on a file, until one comes through. First with the second beside the
first (`kind` steps; only every fifth n), then in its place (`final`). After each it prints a line of JSON: kind,
whether the child was killed, the step of the checkpoint that counts then (what `newest_intact` finds), what was said,
and what is left. At last (`full`) it saves under one limit to the size of files after the other, each below that of a
file more.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch

from preceptor_trainer.checkpoint import (
    Moments,
    TrainerState,
    load_state,
    newest_intact,
    save_checkpoint,
    step_directory,
    verify,
)
from preceptor_trainer.data.stream import Position
from preceptor_trainer.errors import TrainError
from tiny_policy import tiny_llama, word_tokenizer

_OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def state(step: int) -> tuple[TrainerState, Moments]:
    """Small, with something in every part."""
    rng = {"torch": torch.get_rng_state()}
    moments = {"embedding.weight": {"exp_avg": torch.full((4,), float(step))}}
    return TrainerState("run", step, rng, 0, Position(0, step), [], {}, {}), moments


def _kill_at(number: int) -> None:
    """At the `number`-th operation on a file from now on."""
    left = number

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in _OPERATIONS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    first = out.with_name("first")
    save_checkpoint(first, tiny_llama(), word_tokenizer(), *state(1))
    for kind, stride in (("steps", 5), ("final", 1)):
        number, killed = 0, True
        while killed:
            number += stride
            shutil.rmtree(out, ignore_errors=True)
            before, target = (out / "final" if kind == "final" else step_directory(out, step) for step in (1, 2))
            shutil.copytree(first, before)
            killed = _save_and_die(target, number)
            said: list[str] = []
            found = newest_intact(out, said.append)
            step = load_state(found).step if found else None
            left = sorted(path.name for pattern in ("*", "checkpoints/*") for path in out.glob(pattern))
            print(json.dumps({"kind": kind, "killed": killed, "step": step, "said": said, "left": left}), flush=True)
    _save_full(out)


def _save_and_die(target: Path, kill_at: int) -> bool:
    """False if the save came through before it could be killed."""
    model, tokenizer = tiny_llama(), word_tokenizer()
    child = os.fork()
    if child == 0:
        _kill_at(kill_at)
        save_checkpoint(target, model, tokenizer, *state(2))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _save_full(out: Path) -> None:
    model, tokenizer, target = tiny_llama(), word_tokenizer(), out / "final"
    for size in sorted({path.stat().st_size for path in target.iterdir()}):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, resource.RLIM_INFINITY))
        said = "saved"
        try:
            save_checkpoint(target, model, tokenizer, *state(3))
        except TrainError as error:
            said = str(error)
        verify(target)
        left = [path.name for path in out.iterdir()]
        print(json.dumps({"kind": "full", "step": load_state(target).step, "said": said, "left": left}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
