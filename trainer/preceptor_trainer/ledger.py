"""How every cohort of a run ended: one line of JSON each, in `<out>/cohorts.jsonl`.

    {"cohort": "0-17", "outcome": "trained", "step": 4, "version": 2, "reason": null,
     "scores": {"original": 0.5, "rollout-0": 0.9}, "failed": [], "chosen": "rollout-0", "rejected": "original"}
    {"cohort": "0-18", "outcome": "tied", "step": null, "version": null, "reason": "none given", ...}

In: cohorts as they are trained or dropped. Out: a file that only grows, so that a part of it can be told by its
length: a checkpoint notes how long it was, and a run that goes on from there cuts off what follows. A line is with
the operating system when the call returns, and on the disk after `flush_to_disk`. Raises OSError.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.errors import TrainError

LEDGER_FILE = "cohorts.jsonl"


class End(TypedDict):
    """A line."""

    cohort: str
    outcome: str
    """trained, or why it was dropped: tied, unjudged, malformed, dead, unfit, stale."""
    step: int | None
    """The update, from 1, that trained on it."""
    version: int | None
    """Updates behind the weights that sampled it; of what was trained."""
    reason: str | None
    """Of what was dropped."""
    scores: dict[str, float]
    """Candidate -> composite score, of what was trained."""
    failed: list[str]
    """The candidates of it that lack a verdict on some axis: they have no score and are not trained on."""
    chosen: str | None
    rejected: str | None


class CohortLedger:
    """Open it with `with`. It goes on at the end of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = self._path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def bytes(self) -> int:
        """How long the file is."""
        return self._file.tell()

    def trained(self, cohort: PolicyCohort, *, step: int) -> None:
        """Update `step`, from 1, trained on `cohort`."""
        end = End(
            cohort=cohort.id,
            outcome="trained",
            step=step,
            version=cohort.version,
            reason=None,
            scores={},
            failed=[],
            chosen=None,
            rejected=None,
        )
        if cohort.judged:
            end["scores"] = cohort.judged.scores
            end["failed"] = list(cohort.judged.failed)
            end["chosen"] = cohort.judged.chosen.id
            end["rejected"] = cohort.judged.rejected.id
        self._write(end)

    def dropped(self, id: str, outcome: str, reason: str) -> None:
        """The cohort `id` will not be trained on."""
        self._write(
            End(
                cohort=id,
                outcome=outcome,
                step=None,
                version=None,
                reason=reason,
                scores={},
                failed=[],
                chosen=None,
                rejected=None,
            )
        )

    def flush_to_disk(self) -> None:
        """What the file holds now survives a loss of power."""
        os.fsync(self._file.fileno())

    def _write(self, end: End) -> None:
        self._file.write(json.dumps(end).encode() + b"\n")
        self._file.flush()


def read_ledger(path: Path) -> list[End]:
    """Every cohort that ended. A last line that is being written is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def cut_back(path: Path, length: int) -> None:
    """Take `path` back to its first `length` bytes. Raises `TrainError` if it never had them."""
    try:
        with path.open("r+b" if path.exists() else "wb") as file:
            found = file.seek(0, os.SEEK_END)
            if found < length:
                raise TrainError(
                    f"{path} has {found} bytes and the checkpoint knows of {length}: "
                    "put back the file as it was, or begin again by --restart"
                )
            file.truncate(length)
            os.fsync(file.fileno())
    except OSError as error:
        raise TrainError(f"cannot cut back {path}: {error.strerror}") from error
