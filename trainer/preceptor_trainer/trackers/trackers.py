"""The lines of `metrics.jsonl`, told to whatever else keeps them: each step once, also over resumes.

In: lines as they are written, and again those that an earlier part of the run has written. Out: figures by name
(`judge/calls`) in each tracker. Guarantees: a step is told to a tracker once: what was told is noted in
`<out>/trackers.json` before, so that a kill may lose the step it hits, and repeats none. TensorBoard forgets what came
after the checkpoint that is resumed from and is told it anew; W&B and trackio cannot, and keep what those steps were
first. One that is turned on with a resume gets the earlier steps as well. Raises `TrainError`.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.trackers.backends import BACKENDS, TENSORBOARD_FOLDER, Tracker
from preceptor_trainer.trackers.config import LoggingConfig

_NOTE_FILE = "trackers.json"


def check_installed(config: LoggingConfig) -> None:
    """Raises `TrainError` if a package is missing."""
    for name in config.on:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, as `wandb` leaves behind, is no package
            raise TrainError(
                f"logging.{name} is set, and {name} is not installed: pip install 'preceptor[{name}]', or leave it out"
            )


class Trackers:
    """All that `config.logging` asks for, open for the length of the `with` block. `done` steps are behind; a run that
    begins (0) begins there as well."""

    def __init__(self, config: TrainConfig, done: int) -> None:
        self._config = config
        self._done = done
        self._note = config.out / _NOTE_FILE
        self._open: dict[str, Tracker] = {}
        self._told: dict[str, int] = {}
        self._id = ""

    def __enter__(self) -> Self:
        if not self._done:
            self._note.unlink(missing_ok=True)
            shutil.rmtree(self._config.out / TENSORBOARD_FOLDER, ignore_errors=True)
        note: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
        self._id = note.get("id") or f"{self._config.run[:96]}-{secrets.token_hex(4)}"
        self._told = note.get("told", {})
        for name in self._config.logging.on:
            tracker: Tracker = BACKENDS[name](self._config, self._id, self._done)
            self._open[name] = tracker
            told = self._told.get(name, 0)
            self._told[name] = min(told, self._done) if tracker.takes_back else told
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._open.values():
            tracker.close(failed=error is not None)

    def tell(self, line: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`."""
        step: int = line["step"]
        if late := [name for name in self._open if self._told[name] < step]:
            figures = figures_of(line)
            self._told |= dict.fromkeys(late, step)
            self._write_note()
            for name in late:
                self._open[name].log(step, figures)

    def _write_note(self) -> None:
        partial = self._note.with_suffix(".partial")
        partial.write_text(json.dumps({"id": self._id, "told": self._told}) + "\n", encoding="utf-8")
        partial.replace(self._note)


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a line but its step, by their path in it."""
    figures: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{inner}": number for inner, number in figures_of(value).items()}
        elif isinstance(value, int | float) and name != "step":
            figures[name] = value
    return figures
