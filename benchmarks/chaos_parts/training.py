"""The trainer under fire: `preceptor train`, hit and resumed, one short run after the other for as long as needed.

In: a folder, the services' addresses. Out: runs in folders of their own, each to its end. Raises `PartFailed` when the
trainer ends in any other way than by its own success or by being hit.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chaos_parts.audit import TRAINED, Run
from chaos_parts.plan import Fault, Kind
from chaos_parts.progress import Watch, json_lines
from chaos_parts.services import kill, pause
from preceptor_client.config import load_config
from preceptor_client.stack import Part, Process
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import ENV_PREFIX, DataConfig, TrainConfig
from preceptor_trainer.data.stream import WindowStream
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.tokenizer import policy_tokenizer

COHORTS_PER_STEP = 4
_LAST_STEPS = 8
"""A run this near to its end is not hit any more: its end would be over before its recovery."""


@dataclass
class Resume:
    """A trainer that was started again, after `step` if there was a checkpoint of it."""

    run: Path
    step: int
    """The newest checkpoint's; 0 if there was none."""
    trained: Watch
    """Steps since."""

    @property
    def ok(self) -> bool:
        """Whether it went on from there: it kept those steps, and trained a further one."""
        return self.trained.grown() > 0 and self.trained.least >= self.step


class Training:
    """Runs of `steps` each. Call `go_on` often."""

    def __init__(self, folder: Path, redis_url: str, rewrite_url: str, *, steps: int, seed: int) -> None:
        self._folder = folder
        self._steps = steps
        self._seed = seed
        self._policy = folder / "policy"
        tokenizer = policy_tokenizer()
        nano_llama(tokenizer, layers=1, seed=seed).save_pretrained(self._policy)
        tokenizer.save_pretrained(self._policy)
        self.corpus = write_corpus(folder / "corpus.jsonl", 2 * steps * COHORTS_PER_STEP, name="chaos", seed=seed)
        self._addresses = {"judge": {"redis_url": redis_url}, "rewrite": {"url": rewrite_url}}
        self.outs: list[Path] = []
        self.resumes: list[Resume] = []
        self._process: Process | None = None
        self._lives = 0

    def go_on(self, *, another: bool) -> bool:
        """False when the run has ended well and `another` is not to begin; else one is going on."""
        if self._process and self._process.exited.is_set():
            status = self._process.stop()
            if status != 0:
                raise self._process.failure()
            self._process = None
            if not another:
                return False
        if self._process is None:
            self._begin()
        return True

    def stop(self) -> None:
        """End what is running."""
        if self._process:
            self._process.stop()

    def trained(self) -> int:
        """Cohorts trained so far, over all runs."""
        return sum(line["outcome"] == TRAINED for out in self.outs for line in json_lines(out / "cohorts.jsonl"))

    @property
    def may_be_hit(self) -> bool:
        """Whether it has trained, and is not about to end."""
        return 0 < _steps_of(self.outs[-1]) <= self._steps - _LAST_STEPS

    def strike(self, fault: Fault) -> None:
        """Do it; a trainer that was ended is started again with `--resume`. Returns at once then."""
        assert self._process is not None
        if fault.kind is Kind.PAUSE:
            pause(self._process, fault.pause_s)
            return
        if fault.kind is Kind.KILL:
            kill(self._process)
        self._process.stop()
        out = self.outs[-1]
        checkpoints = sorted((out / "checkpoints").glob("step-*"))
        step = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
        self._launch(out, "--resume")
        self.resumes.append(Resume(out, step, Watch(lambda: _steps_of(out))))

    def ended_runs(self) -> list[Run]:
        """What the auditor needs of every run, read back from the disk."""
        return [self._ended(out) for out in self.outs]

    def failed_verdicts(self) -> int:
        """How many verdicts failed, over all runs: none of them may have become a reward."""
        return sum(line["judge"]["failed"] for out in self.outs for line in json_lines(out / "metrics.jsonl"))

    def _begin(self) -> None:
        out = self._folder / f"run-{len(self.outs) + 1}"
        out.mkdir()
        self.outs.append(out)
        values: dict[str, Any] = {
            "run": out.name,
            "out": str(out),
            "seed": self._seed,
            "device": "cpu",
            "threads": 1,
            "steps": self._steps,
            "cohorts_per_step": COHORTS_PER_STEP,
            "model": {"path": str(self._policy)},
            "data": {"path": str(self.corpus), "prefix_tokens": 24, "min_prefix_tokens": 8, "suffix_tokens": 16},
            "pool": {"original": True, "rewrite": True, "rollouts": 1},
            "objective": {"name": "dpo"},
            "staleness": {"limit": 1},
            "checkpoint": {"every": 3},
            **self._addresses,
        }
        self._config(out).write_text(yaml.safe_dump(values), encoding="utf-8")
        self._launch(out)

    def _launch(self, out: Path, *arguments: str) -> None:
        self._lives += 1
        command = (sys.executable, "-m", "preceptor_trainer", "train", str(self._config(out)), *arguments)
        self._process = Process(Part("trainer", command, self._folder / "trainer" / f"life-{self._lives}.log"))

    def _config(self, out: Path) -> Path:
        return self._folder / f"{out.name}.yaml"

    def _ended(self, out: Path) -> Run:
        config = load_config(TrainConfig, self._config(out), [], env_prefix=ENV_PREFIX)
        return Run(
            name=out.name,
            steps=config.steps,
            cohorts_per_step=config.cohorts_per_step,
            staleness=config.staleness.limit,
            ledger=json_lines(out / "cohorts.jsonl"),
            metrics=[line["step"] for line in json_lines(out / "metrics.jsonl")],
            issued=_issued(config.data, out),
        )


def _issued(data: DataConfig, out: Path) -> list[str]:
    """The windows up to the final position, from the corpus itself."""
    last = load_state(out / "final").position
    issued = []
    for window, position in WindowStream(data, Codec(policy_tokenizer()).encode):
        issued.append(window.id)
        if position == last:
            return issued
    raise AssertionError(f"{last} is no position of the stream")


def _steps_of(out: Path) -> int:
    return len(json_lines(out / "metrics.jsonl"))
