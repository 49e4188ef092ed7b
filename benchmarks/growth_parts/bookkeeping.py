"""What the trainer does about cohorts beside computing: the buffer's states, selection, ledger, metrics, checkpoints.

Two steps of n cohorts, for both of which the buffer has slots (staleness 1). Every verdict comes by itself while the
learner waits for its batch.
"""

from __future__ import annotations

import asyncio
import io
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from benchmarks.growth_parts.curves import Curve
from benchmarks.growth_parts.policy import cohorts, policy, window
from benchmarks.measuring.sides import interleaved, medians
from preceptor_client.contract import (
    AxisReport,
    Composite,
    JudgeResponse,
    Provenance,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_trainer.buffer import CohortBuffer
from preceptor_trainer.checkpoint import TrainerState, rng_states, save_checkpoint
from preceptor_trainer.cohorts import Judged, PolicyCohort, PreparedWindow
from preceptor_trainer.data.stream import Position
from preceptor_trainer.learner import UpdateStats
from preceptor_trainer.ledger import LEDGER_FILE, CohortLedger
from preceptor_trainer.nano.tokenizer import policy_tokenizer
from preceptor_trainer.objectives.selection import select
from preceptor_trainer.telemetry import Telemetry

K = 4


def bookkeeping_curves(
    cohorts_a_step: Sequence[int], candidates: Sequence[int], in_flight: Sequence[int], rounds: int
) -> Iterator[Curve]:
    """Seconds of a step, and of a checkpoint with cohorts in flight."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs: dict[int, Callable[[], object]] = {n: _step(folder, n, K) for n in cohorts_a_step}
        yield _curve("bookkeeping", "cohorts", jobs, rounds)
        jobs = {k: _step(folder, 64, k) for k in candidates}
        yield _curve("bookkeeping", "candidates", jobs, rounds)
        jobs = {n: _checkpoint(folder, n) for n in in_flight}
        yield _curve("checkpoint", "cohorts in flight", jobs, rounds)


def _curve(part: str, against: str, jobs: dict[int, Callable[[], object]], rounds: int) -> Curve:
    seconds = medians(interleaved({str(size): job for size, job in jobs.items()}, rounds))
    return Curve(part, against, "s", list(jobs), list(seconds.values()))


def _step(folder: Path, count: int, k: int) -> Callable[[], object]:
    batch = [(cohort, response(cohort)) for cohort in cohorts(2 * count, k, prefix=8, suffix=4)]

    def step() -> None:
        with redirect_stderr(io.StringIO()):  # where the run says how far it is
            asyncio.run(_two_steps(folder, count, batch))

    return step


async def _two_steps(folder: Path, count: int, batch: Sequence[tuple[PolicyCohort, JudgeResponse]]) -> None:
    buffer: CohortBuffer[PolicyCohort] = CohortBuffer(count, 1, batches=2)
    for name in ("metrics.jsonl", LEDGER_FILE):
        (folder / name).unlink(missing_ok=True)
    with Telemetry(folder, "growth", steps=1_000_000) as telemetry, CohortLedger(folder / LEDGER_FILE) as ledger:
        taking = asyncio.create_task(buffer.take(0))
        for cohort, _ in batch:
            await buffer.room()
            buffer.admit(cohort.id, 0)
        for cohort, _ in batch:
            await buffer.sampled(cohort.id, 0)
        for cohort, answer in batch:
            telemetry.judged(answer)
            judged = select(cohort, answer)
            assert isinstance(judged, Judged)
            await buffer.answer(cohort.id, replace(cohort, judged=judged))
        for version in (0, 1):
            taken = await (taking if version == 0 else buffer.take(version))
            assert taken is not None
            for cohort in taken:
                ledger.trained(cohort, step=version + 1)
            telemetry.step(version, taken, UpdateStats(0.0, 0.0, 0.0, 0))
            await buffer.release(version + 1)


def _checkpoint(folder: Path, count: int) -> Callable[[], object]:
    in_flight = [
        PreparedWindow(window(place, 128, 32, random.Random(0)), Position(0, place), None) for place in range(count)
    ]
    state = TrainerState(
        run="growth",
        step=1,
        rng=rng_states(),
        samplings=0,
        position=Position(),
        in_flight=in_flight,
        files={},
        config={},
    )
    model, tokenizer = policy(), policy_tokenizer()
    return lambda: save_checkpoint(folder / "checkpoint", model, tokenizer, state, moments={})


def response(cohort: PolicyCohort) -> JudgeResponse:
    """Verdicts on one axis, and the composites."""
    assert cohort.judged
    scores = cohort.judged.scores
    provenance = Provenance(teacher="t", revision="r", rubric="q", rubric_hash="h", sampling=Sampling())
    return JudgeResponse(
        cohort_id=cohort.id,
        verdicts=tuple(
            Verdict(candidate_id=id, axis="quality", status=Status.OK, score=score) for id, score in scores.items()
        ),
        axes={"quality": AxisReport(provenance=provenance, usage=Usage(calls=1))},
        composites=tuple(Composite(candidate_id=id, score=score) for id, score in scores.items()),
        elapsed_s=0.1,
    )
