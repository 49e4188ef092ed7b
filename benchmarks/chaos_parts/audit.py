"""What came of a run, against what went into it. Pure.

In: the ledger, the metrics and the batches as they stand at the end, and the windows that the stream gives out when it
is read again. Out: `Findings`, each a line of text; none if every window was trained or dropped with a reason, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preceptor_client.contract import BatchResult, Status

TRAINED = "trained"


@dataclass
class Findings:
    """What must not be."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed_as_reward: list[str] = field(default_factory=list)
    too_stale: list[str] = field(default_factory=list)

    def __iadd__(self, other: Findings) -> Findings:
        for name, found in vars(other).items():
            getattr(self, name).extend(found)
        return self

    def __bool__(self) -> bool:
        return any(vars(self).values())


@dataclass(frozen=True)
class Run:
    """A training run that has ended: the lines of its ledger, the steps of its metrics, the windows it took."""

    steps: int
    cohorts_per_step: int
    staleness: int
    ledger: Sequence[Mapping[str, Any]]
    metrics: Sequence[int]
    issued: Sequence[str]
    """Ids of the windows that the stream gave out up to the last position, in order."""


@dataclass
class BatchAccount:
    """A batch of `items`: the results as they reached the caller, and as the service has them at the end."""

    id: str
    items: int
    received: list[BatchResult] = field(default_factory=list)
    stored: list[BatchResult] = field(default_factory=list)


def audit_run(run: Run) -> Findings:
    """Windows, steps, scores and ages of one training run."""
    findings = Findings()
    ends = Counter(window_of(line["cohort"]) for line in run.ledger)
    issued = Counter(run.issued)
    findings.lost += [f"window {window} was given out and never ended" for window in issued - ends]
    findings.doubled += [
        f"window {window} ended {ends[window]} times and was given out {issued[window]} times"
        for window in ends - issued
    ]
    expected = Counter(range(1, run.steps + 1))
    _compare(findings, "a line of metrics for step", Counter(run.metrics), expected)
    trained = [line for line in run.ledger if line["outcome"] == TRAINED]
    of_step = Counter(line["step"] for line in trained)
    needed = Counter(dict.fromkeys(expected, run.cohorts_per_step))
    _compare(findings, "a cohort trained at step", of_step, needed)
    for line in run.ledger:
        who = f"cohort {line['cohort']}"
        if line["outcome"] != TRAINED:
            if not line["reason"]:
                findings.lost.append(f"{who} was dropped as {line['outcome']} without a reason")
            continue
        rewarded = {id for id, score in line["scores"].items() if score is not None}
        rewarded |= {line["chosen"], line["rejected"]}
        findings.failed_as_reward += [
            f"{who}: {candidate} has no verdict on some axis and was rewarded"
            for candidate in sorted(rewarded & set(line["failed"]))
        ]
        if line["step"] - 1 - line["version"] > run.staleness:
            findings.too_stale.append(f"{who} was sampled at {line['version']} and trained at {line['step'] - 1}")
    return findings


def audit_batch(batch: BatchAccount) -> Findings:
    """Every item of a batch has one result, with the caller and with the service; nothing failed has a score."""
    findings = Findings()
    items = Counter(range(batch.items))
    for where, results in (("received", batch.received), ("stored", batch.stored)):
        _compare(findings, f"batch {batch.id}: a result {where} of item", Counter(r.index for r in results), items)
    for result in batch.stored:
        who = f"batch {batch.id}: item {result.index}"
        if result.response is None:
            findings.lost.append(f"{who} has no verdicts: {result.problem}")
            continue
        failed = {verdict.candidate_id for verdict in result.response.verdicts if verdict.status is not Status.OK}
        findings.failed_as_reward += [
            f"{who}: {composite.candidate_id} has no verdict on some axis and a score"
            for composite in result.response.composites
            if composite.score is not None and composite.candidate_id in failed
        ]
    return findings


def audit_queue(left: Mapping[str, int]) -> Findings:
    """Nothing is left in the queue when all runs have ended. `left` is what is, by where."""
    return Findings(lost=[f"{number} left in the queue: {where}" for where, number in left.items() if number])


def window_of(cohort: str) -> str:
    """The id of a cohort's window, `<epoch>-<document>`, at the end of its own."""
    return "-".join(cohort.rsplit("-", 2)[-2:])


def _compare(findings: Findings, what: str, found: Counter[Any], expected: Counter[Any]) -> None:
    findings.lost += _lines(what, "is missing", expected - found)
    findings.doubled += _lines(what, "is too many", found - expected)


def _lines(what: str, how: str, difference: Mapping[Any, int]) -> Iterable[str]:
    return (f"{what} {which} {how}" for which, times in difference.items() for _ in range(times))
