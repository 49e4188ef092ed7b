"""What a run says about itself: `metrics.jsonl` and `summary.json` in its folder, and a progress display on stderr.

In: counts and seconds as they happen, and one `step` per update. Out: one JSON line per step holding all that happened
since the last one; at the end their totals, of rewards the means by control. Guarantees: a line is written before the
next step begins. Sums reset with each line, so that totals are sums over the lines. A resumed run goes on in the file
where its checkpoint was written; what came after is cut off.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from preceptor_client.contract import JudgeResponse, Origin, Status
from preceptor_client.queue import Trouble
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.guards.config import Reading
from preceptor_trainer.learner import UpdateStats
from preceptor_trainer.metrics import Metrics
from preceptor_trainer.rewards import RewardTotals, by_control
from preceptor_trainer.stall import Stall

METRICS_FILE = "metrics.jsonl"
LINE_EVERY_S = 5.0
WORK = frozenset({"sampling", "updating", "guarding", "syncing"})
"""What the trainer does itself; `seconds.idle` is the time in which it does none of it."""
_SUMMED = ("judge", "events", "seconds", "stalled", "chosen", "rejected")
NO_VERDICTS = {"cohorts": 0, "calls": 0, "tokens": 0, "verdicts": 0, "abstained": 0, "failed": 0}
"""`judge` of a line has all of these, also when no verdict came since the last one."""


class Follower(Protocol):
    """Wants to know as well."""

    def row(self, line: Mapping[str, Any]) -> None:
        """A line was written."""

    def waits(self, part: str) -> None:
        """The learner has been waiting for `part`."""


class Telemetry:
    """Open it with `with`. `judged` and `count` may be called at any time between steps. What `metrics.jsonl` holds
    already belongs to the run. `metrics` are told what happens, as it happens; `tell` is told every line, those of an
    earlier part too.
    """

    def __init__(
        self,
        out: Path,
        run: str,
        steps: int,
        metrics: Metrics | None = None,
        tell: Callable[[Mapping[str, Any]], None] = lambda line: None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._out = out
        self._tell = tell
        self._run = run
        self._steps = steps
        self._judge = Counter(NO_VERDICTS)
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._stalled: Counter[str] = Counter()
        self._readings: dict[Reading, float | None] = {}
        self._trouble: Trouble | None = None
        self._followers: list[Follower] = []
        self._earlier_s = 0.0
        self._totals: dict[str, Counter[str]] = defaultdict(Counter)
        self._rewards = RewardTotals()
        self._started = self._idle_since = time.monotonic()
        self._working = 0
        self._last_line = -LINE_EVERY_S
        console = Console(stderr=True)
        self._progress = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        path = self._out / METRICS_FILE
        done = 0
        if path.exists():
            done = self._take_over([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        self._file = path.open("ab")
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task(self._run, total=self._steps, completed=done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()
        self._file.close()
        self._add_to_totals(self._sums())
        summary = {
            "elapsed_s": round(self._elapsed_s(), 3),
            **{name: _rounded(dict(totals)) for name, totals in self._totals.items()},
        }
        if rewards := self._rewards.means():
            summary["controls"] = _rounded(rewards)
        (self._out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def _take_over(self, lines: Sequence[dict[str, Any]]) -> int:
        """Go on from the lines of an earlier part of the run; how many steps they hold."""
        for line in lines:
            self._add_to_totals({name: Counter(line[name]) for name in _SUMMED if name in line})
            self._totals["trained"].update(steps=1, cohorts=line["cohorts"], tokens=line["tokens"])
            self._rewards.add(line.get("controls", {}))
            self._earlier_s = line["elapsed_s"]
            self._tell(line)
        return len(lines)

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started

    def followed_by(self, follower: Follower) -> None:
        """`follower` is told what comes from here on."""
        self._followers.append(follower)

    @property
    def bytes(self) -> int:
        """How long `metrics.jsonl` is."""
        return self._file.tell()

    def flush_to_disk(self) -> None:
        """What `metrics.jsonl` holds now survives a loss of power."""
        os.fsync(self._file.fileno())

    def trouble(self, trouble: Trouble | None) -> None:
        """A call to Redis failed and will be repeated, or, with None, has succeeded after all."""
        if trouble is not None:
            self.count(f"redis_{trouble.kind}")
        if (trouble and trouble.kind) != (self._trouble and self._trouble.kind):
            self.say("Redis answers again" if trouble is None else f"{trouble}; waiting for it")
        self._trouble = trouble

    @property
    def redis_trouble(self) -> str | None:
        """What keeps Redis from answering now."""
        return str(self._trouble) if self._trouble else None

    def stalled(self, stall: Stall, seconds: float) -> None:
        """The learner has waited so much longer, for this."""
        self._stalled[stall.part] += seconds  # type: ignore[assignment]
        self._metrics.stalled.labels(stall.part).inc(seconds)
        if not self._working:
            self._idled(time.monotonic())
        for follower in self._followers:
            follower.waits(stall.part)
        self.say(f"waiting for {stall.part}: {stall.detail}")

    def say(self, what: str) -> None:
        """A line for whoever watches."""
        if self._progress:
            self._progress.console.print(f"{self._run}: {what}", highlight=False)
        else:
            print(f"{self._run}: {what}", file=sys.stderr, flush=True)

    def count(self, what: str, by: int = 1) -> None:
        """Something happened: a cohort was dropped as tied, a rewrite refused, ..."""
        self._counts[what] += by
        self._metrics.count(what, by)

    def total(self, name: str, **values: int) -> None:
        """Figures for the summary alone."""
        self._totals[name].update(values)

    def read(self, readings: Mapping[Reading, float], beyond: Mapping[Reading, int]) -> None:
        """What the drift guards read, for the next line; what is no number is null there. `beyond` are the readings in
        a row beyond a limit.
        """
        self._metrics.read(readings, beyond)
        self._readings |= {name: value if math.isfinite(value) else None for name, value in readings.items()}

    def sampled(self, cohorts: Sequence[PolicyCohort]) -> None:
        """The policy has written these cohorts' rollouts."""
        candidates = chain.from_iterable(cohort.candidates for cohort in cohorts)
        written = sum(len(each.ids) for each in candidates if each.origin is Origin.ROLLOUT)
        self._metrics.tokens.labels("sampling").inc(written)

    def judged(self, response: JudgeResponse) -> None:
        """A response came, usable or not."""
        self._metrics.judged(response)
        usage = response.usage
        statuses = Counter(verdict.status for verdict in response.verdicts)
        self._judge.update(
            cohorts=1,
            calls=usage.calls,
            tokens=usage.tokens,
            verdicts=len(response.verdicts),
            abstained=statuses[Status.ABSTAINED],
            failed=statuses[Status.FAILED],
        )

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Seconds spent in the block go to `seconds.<what>` of the next line; see `WORK`."""
        start = time.monotonic()
        works = what in WORK
        if works and not self._working:
            self._idled(start)
        self._working += works
        try:
            yield
        finally:
            end = time.monotonic()
            self._seconds[what] += end - start  # type: ignore[assignment]
            self._metrics.spent(what, end - start)
            self._working -= works
            if works and not self._working:
                self._idle_since = end

    def _idled(self, now: float) -> None:
        self._seconds["idle"] += now - self._idle_since  # type: ignore[assignment]
        self._metrics.idle.inc(now - self._idle_since)
        self._idle_since = now

    def step(self, version: int, batch: Sequence[PolicyCohort], update: UpdateStats) -> None:
        """Update `version` (from 0) trained on `batch`."""
        staleness = [version - cohort.version for cohort in batch]
        sums, rewards = {**self._sums(), **_origins(batch)}, by_control(batch)
        line: dict[str, Any] = {
            "step": version + 1,
            "elapsed_s": self._elapsed_s(),
            "cohorts": len(batch),
            "loss": update.loss,
            "lr": update.lr,
            "grad_norm": update.grad_norm,
            "tokens": update.tokens,
            **update.figures,
            "scores": _scores(batch),
            **({"controls": rewards} if rewards else {}),
            "staleness": {"mean": fmean(staleness), "max": max(staleness)},
            **({"guards": self._readings} if self._readings else {}),
            **sums,
        }
        line = _rounded(line)
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self._tell(line)
        self._metrics.updated(line, staleness)
        for follower in self._followers:
            follower.row(line)
        self._add_to_totals(sums)
        self._rewards.add(rewards)
        self._totals["trained"].update(steps=1, cohorts=len(batch), tokens=update.tokens)
        self._judge, self._counts = Counter(NO_VERDICTS), Counter()
        self._seconds, self._stalled = Counter(), Counter()
        self._readings = {}
        self._show(version + 1, update)

    def _sums(self) -> dict[str, Counter[str]]:
        return {"judge": self._judge, "events": self._counts, "seconds": self._seconds, "stalled": self._stalled}

    def _add_to_totals(self, sums: dict[str, Counter[str]]) -> None:
        for name, values in sums.items():
            self._totals[name].update(values)

    def _show(self, step: int, update: UpdateStats) -> None:
        if self._progress:
            self._progress.update(self._task, completed=step, note=f"loss {update.loss:.3f}")
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S or step == self._steps:
            self._last_line = now
            self.say(f"step {step}/{self._steps}, loss {update.loss:.3f}, {self._elapsed_s():.0f} s")


def _origins(batch: Sequence[PolicyCohort]) -> dict[str, Counter[str]]:
    """How often each origin was chosen and rejected; empty if nothing was judged."""
    judged = [cohort.judged for cohort in batch if cohort.judged]
    if not judged:
        return {}
    return {
        "chosen": Counter(each.chosen.origin.value for each in judged),
        "rejected": Counter(each.rejected.origin.value for each in judged),
    }


def _scores(batch: Sequence[PolicyCohort]) -> dict[str, dict[str, float]]:
    """Axis -> mean score of all judged candidates (`all`) and by origin."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cohort in batch:
        if cohort.judged:
            origins: dict[str, Origin] = {candidate.id: candidate.origin for candidate in cohort.candidates}
            for axis, scores in cohort.judged.axis_scores.items():
                for id, score in scores.items():
                    values[axis]["all"].append(score)
                    values[axis][origins[id].value].append(score)
    return {axis: {name: fmean(scores) for name, scores in named.items()} for axis, named in values.items()}


def _rounded(value: Any) -> Any:
    """Six significant digits are enough for every figure here."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
