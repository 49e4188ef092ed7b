"""The trainer under fire: `preceptor train`, hit and resumed.

In: a folder, the services' addresses. Out: a run that goes on until it is told to finish, then to its end a few steps
later. Raises `PartFailed` when the trainer ends in any other way than by its own success or by being hit.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import logging as transformers_logging

from benchmarks.chaos_parts.audit import TRAINED, Run
from benchmarks.chaos_parts.plan import Fault, Kind
from benchmarks.chaos_parts.progress import Watch, count, json_lines
from benchmarks.chaos_parts.services import kill, pause
from preceptor_client.config import load_config
from preceptor_client.stack import Part, Process
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.stream import Position, WindowStream
from preceptor_trainer.ledger import LEDGER_FILE
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.tokenizer import policy_tokenizer
from preceptor_trainer.telemetry import METRICS_FILE

COHORTS_PER_STEP = 4
STALENESS = 1
_ENDLESS = 1_000_000
_DOCUMENTS = 2000
_LAST_STEPS = 5
"""After the last fault: more than are in flight, so that the end has to be exact."""


@dataclass
class Resume:
    """A trainer that was started again, after `step` if there was a checkpoint of it."""

    step: int
    """The newest checkpoint's; 0 if there was none."""
    trained: Watch
    """Steps since."""

    @property
    def ok(self) -> bool:
        """Whether it went on from there: it kept those steps, and trained a further one."""
        return self.trained.grown() > 0 and self.trained.least >= self.step


class Training:
    """One run. `begin` it, `strike` it, `finish` it."""

    def __init__(self, folder: Path, redis_url: str, rewrite_url: str, *, seed: int) -> None:
        self._out = folder / "run"
        self._logs = folder / "trainer"
        self._config = folder / "run.yaml"
        transformers_logging.disable_progress_bar()
        policy, tokenizer = folder / "policy", policy_tokenizer()
        nano_llama(tokenizer, layers=1, seed=seed).save_pretrained(policy)
        tokenizer.save_pretrained(policy)
        self.corpus = write_corpus(folder / "corpus.jsonl", _DOCUMENTS, name="chaos", seed=seed)
        values: dict[str, Any] = {
            "run": "chaos",
            "out": str(self._out),
            "seed": seed,
            "device": "cpu",
            "threads": 1,
            "steps": _ENDLESS,
            "cohorts_per_step": COHORTS_PER_STEP,
            "model": {"path": str(policy)},
            "data": {"path": str(self.corpus), "prefix_tokens": 24, "min_prefix_tokens": 8, "suffix_tokens": 16},
            "pool": {"original": True, "rewrite": True, "rollouts": 1},
            "judge": {"redis_url": redis_url},
            "rewrite": {"url": rewrite_url},
            "objective": {"name": "dpo"},
            "optimizer": {"schedule": "constant"},
            "staleness": {"limit": STALENESS},
            "checkpoint": {"every": 3},
        }
        self._config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self._steps = _ENDLESS
        self._lives = 0
        self.resumes: list[Resume] = []

    def begin(self) -> None:
        """Start it."""
        self._launch()

    def strike(self, fault: Fault) -> None:
        """Do it; a trainer that was ended is started again with `--resume`. Returns at once then."""
        if fault.kind is Kind.PAUSE:
            pause(self._process, fault.pause_s)
            return
        if fault.kind is Kind.KILL:
            kill(self._process)
        self._resume()

    def finish(self) -> None:
        """Stop it once more, and resume it for the last steps."""
        self._process.stop()
        self._steps = self.steps() + _LAST_STEPS
        self._resume(f"--steps={self._steps}")

    def check(self) -> None:
        """Raises `PartFailed` if it has ended, whatever its status: it has steps without end before it."""
        if self._process.exited.is_set():
            raise self._process.failure()

    def ended(self) -> bool:
        """Whether it has done all its steps."""
        if not self._process.exited.is_set():
            return False
        if self._process.stop() != 0:
            raise self._process.failure()
        return True

    def stop(self) -> None:
        """End it."""
        if self._lives:
            self._process.stop()

    def steps(self) -> int:
        """Done so far."""
        return count(self._out / METRICS_FILE, b"\n")

    def trained(self) -> int:
        """Cohorts trained so far."""
        return count(self._out / LEDGER_FILE, f'"outcome": "{TRAINED}"'.encode())

    def failed_verdicts(self) -> int:
        """How many verdicts failed that it was told of: none of them may have become a reward."""
        return sum(int(line["judge"]["failed"]) for line in self._metrics())

    def record(self) -> Run:
        """What the auditor needs of the run, when it has ended."""
        return Run(
            steps=self._steps,
            cohorts_per_step=COHORTS_PER_STEP,
            staleness=STALENESS,
            ledger=self._ledger(),
            metrics=[line["step"] for line in self._metrics()],
            issued=issued_windows(
                load_config(TrainConfig, self._config, [], env_prefix=ENV_PREFIX).data,
                load_state(self._out / "final").position,
            ),
        )

    def _resume(self, *overrides: str) -> None:
        self._process.stop()
        checkpoints = sorted((self._out / "checkpoints").glob("step-*"))
        step = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
        self._launch("--resume", *overrides)
        self.resumes.append(Resume(step, Watch(self.steps)))

    def _launch(self, *arguments: str) -> None:
        self._lives += 1
        command = (sys.executable, "-m", "preceptor_trainer", "train", str(self._config), *arguments)
        # While it loads, Intel's OpenMP would bind itself to each core in turn, also to one that vLLM keeps busy.
        settings = {"KMP_AFFINITY": "disabled"}
        log = self._logs / f"life-{self._lives}.log"
        self._process = Process(Part("trainer", command, log, env=settings, grace_s=30))

    def _ledger(self) -> list[dict[str, Any]]:
        return json_lines(self._out / LEDGER_FILE)

    def _metrics(self) -> list[dict[str, Any]]:
        return json_lines(self._out / METRICS_FILE)


def issued_windows(data: DataConfig, last: Position) -> list[str]:
    """The ids of a nano run's windows up to the position `last`, from the corpus itself."""
    issued = []
    for window, position in WindowStream(data, Codec(policy_tokenizer()).encode):
        issued.append(window.id)
        if position == last:
            return issued
    raise AssertionError("the stream has an end")
