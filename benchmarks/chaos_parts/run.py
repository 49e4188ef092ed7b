"""One run of the chaos suite: everything is started, hit by one fault after the other, let finish, and audited.

In: a folder, the teacher, the faults. Out: an `Outcome`. The next fault comes only when the whole has recovered from
the last: the part is ready, and a cohort has been trained since (for the judge service: and a batch item judged).
Raises `PartFailed` when a part ends that nobody hit, `Stuck` when something takes longer than it may.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos_parts.audit import Findings, audit_batch, audit_queue, audit_run
from benchmarks.chaos_parts.plan import Fault, Kind, Target
from benchmarks.chaos_parts.progress import Watch
from benchmarks.chaos_parts.services import Services
from benchmarks.chaos_parts.traffic import Traffic
from benchmarks.chaos_parts.training import Training
from preceptor_client.queue import QueueOperations, connect

_LOOK_EVERY_S = 0.05
_PATIENCE_S = 180.0
"""For a recovery, for the moment of a fault, for a run's end: none takes nearly as long."""


class Stuck(RuntimeError):
    """Something that should come does not."""


@dataclass(frozen=True)
class Recovery:
    """A fault, and the seconds from its first signal (a pause included) until the whole had recovered."""

    fault: Fault
    seconds: float


@dataclass
class Outcome:
    """What a run came to."""

    recoveries: list[Recovery] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    resumes: int = 0
    resumed_ok: int = 0
    steps: int = 0
    cohorts_trained: int = 0
    cohorts_dropped: int = 0
    batch_items: int = 0
    failed_verdicts: int = 0
    """That the trainer was told of, and had to keep from being rewards."""
    error: str = ""
    """Why the run broke off, if it did."""

    @property
    def failed(self) -> bool:
        """Whether anything is as it must not be."""
        return bool(self.error) or bool(self.findings) or self.resumed_ok < self.resumes


class ChaosRun:
    """`say` is told what happens, as it happens; `events.jsonl` in `folder` keeps it."""

    def __init__(
        self, folder: Path, teacher: Path, faults: Sequence[Fault], *, seed: int, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._faults = faults
        self._say = say
        self._services = Services(folder, teacher)
        urls = self._services.redis_url, self._services.rewrite_url
        self._training = Training(folder, *urls, seed=seed)
        texts = [json.loads(line)["text"] for line in self._training.corpus.read_text(encoding="utf-8").splitlines()]
        self._traffic = Traffic(self._services.judge_url, texts, seed=seed)
        self.outcome = Outcome()
        """Grows as the run goes on, so that a run that fails has one too."""

    def run(self) -> None:
        """Everything."""
        with self._services:
            try:
                self._services.start()
                self._note("everything is ready")
                self._traffic.start()
                self._training.begin()
                for fault in self._faults:
                    self._hit(fault)
                self._finish()
            finally:
                self._training.stop()
        self._audit()

    def _hit(self, fault: Fault) -> None:
        trained = Watch(self._training.trained)
        self._until(f"{fault.cohorts} cohorts are trained", lambda: trained.grown() >= fault.cohorts)
        time.sleep(fault.delay_s)
        self._until(f"{fault.target} has work in hand", lambda: self._services.busy(fault))
        self._note(str(fault))
        began = time.monotonic()
        part = self._training if fault.target is Target.TRAINER else self._services
        part.strike(fault)
        judged, trained = Watch(lambda: self._traffic.results), Watch(self._training.trained)
        if fault.target is Target.TRAINER and fault.kind is not Kind.PAUSE:
            self._wait_for_resume()
        self._until("a cohort is trained again", lambda: trained.grown() > 0)
        if fault.target is Target.JUDGE:
            self._until("a batch item is judged again", lambda: judged.grown() > 0)
        self.outcome.recoveries.append(Recovery(fault, time.monotonic() - began))
        self._note(f"recovered after {self.outcome.recoveries[-1].seconds:.1f} s")

    def _wait_for_resume(self) -> None:
        resume = self._training.resumes[-1]
        self._until("a step is trained again", lambda: resume.trained.grown() > 0)
        self.outcome.resumes += 1
        self.outcome.resumed_ok += resume.ok
        self._note(f"resumed after step {resume.step}: {'as it should' if resume.ok else 'NOT as it should'}")

    def _finish(self) -> None:
        self._training.finish()
        self._wait_for_resume()
        self._until("the run ends", self._training.ended, training=False)
        self._note("trained to the end")
        if not self._traffic.finish(_PATIENCE_S):
            raise Stuck("the batches do not end")
        began, left = time.monotonic(), self._queue()
        while any(left.values()) and time.monotonic() - began < 10:  # a worker may still have a cohort taken back
            time.sleep(_LOOK_EVERY_S)
            left = self._queue()
        self.outcome.findings += audit_queue(left)
        self._note("batches done, queue looked at")

    def _queue(self) -> dict[str, int]:
        """Entries left, by where."""

        async def look() -> dict[str, int]:
            async with connect(self._services.redis_url) as redis:
                status = await QueueOperations(redis).status()
            left = {"waiting": status.waiting, "in flight": status.in_flight, "dead": status.dead}
            return left | {f"answered of {name}": run.answered for name, run in status.runs.items()}

        return asyncio.run(look())

    def _audit(self) -> None:
        outcome, run = self.outcome, self._training.record()
        outcome.findings += audit_run(run)
        outcome.steps = run.steps
        outcome.cohorts_trained = self._training.trained()
        outcome.cohorts_dropped = len(run.ledger) - outcome.cohorts_trained
        outcome.failed_verdicts = self._training.failed_verdicts()
        for batch in self._traffic.batches:
            outcome.findings += audit_batch(batch)
            outcome.batch_items += batch.items

    def _until(self, what: str, there: Callable[[], bool], *, training: bool = True) -> None:
        """Wait until `there()`, and keep an eye on everything meanwhile: nothing may end that was not hit."""
        began = time.monotonic()
        while not there():
            self._services.check()
            if training:
                self._training.check()
            if time.monotonic() - began > _PATIENCE_S:
                raise Stuck(f"{what}: still not so after {_PATIENCE_S:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def _note(self, what: str) -> None:
        self._say(what)
        line: dict[str, Any] = {"at": round(time.time(), 3), "what": what, "cohorts": self._training.trained()}
        with (self._folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"batch_items": self._traffic.results}) + "\n")
