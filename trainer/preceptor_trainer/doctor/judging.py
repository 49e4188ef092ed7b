"""The judge: one real cohort of the run's longest window at hand, through the queue exactly as the trainer submits it.

That is the check of rubric, template and context length against the teacher. In: windows of the run, the one to judge
first. Out: `Check`s, one an axis. With controls that is so for each of their compositions. Waits for an answer for up
to `ANSWER_S`. Guarantees: nothing of it is left in Redis, unless Redis itself went away.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from preceptor_client.checks import Check
from preceptor_client.contract import AxisReport, Composition, Origin, Status, Verdict
from preceptor_client.queue import CohortQueue, QueueMisfit, QueueOperations, QueueUnavailable, connect
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.doctor.services import ANSWER_S, PATIENCE_S
from preceptor_trainer.judges import Answered, Judges

_RUBRIC = "see judge.axes and judge.rubrics, and the worker's rubrics, teacher and its context length"


async def check_judges(
    config: TrainConfig, codec: Codec, windows: Sequence[Window], rewrite: TokenCandidate | None
) -> list[Check]:
    """For when a worker is there. `rewrite` is of the first of `windows`."""
    cohort = PolicyCohort("doctor", windows[0], 0, candidates(codec, windows, rewrite))
    checks: list[Check] = []
    for _, composition in config.compositions:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await _answer(config, codec, cohort, composition)
        except TimeoutError:
            advice = "see the worker's log: does its teacher answer? a busy judge answers later"
            return [*checks, Check("judge", "failure", f"no verdicts in {ANSWER_S:g} s", advice)]
        except (QueueUnavailable, QueueMisfit) as error:
            return [*checks, Check("judge", "failure", str(error), "set judge.redis_url")]
        checks += answer_found(answer)
    return checks


def candidates(
    codec: Codec, windows: Sequence[Window], rewrite: TokenCandidate | None
) -> tuple[TokenCandidate, TokenCandidate]:
    """The original, and what reads differently, since nobody is asked about two that are the same: its rewrite, else
    the suffix of another window or the end of the prefix, as if they were rollouts. Pure but for the tokenizer."""
    window = windows[0]
    original = TokenCandidate("original", Origin.ORIGINAL, window.suffix, codec.decode(window.suffix))
    others = [rewrite] if rewrite else []
    for ids in (*(each.suffix for each in windows[1:]), window.prefix[-len(window.suffix) :]):
        others.append(TokenCandidate("rollout-0", Origin.ROLLOUT, ids, codec.decode(ids)))
    different = (other for other in others if other.text.split() != original.text.split())
    return original, next(different, others[-1])


def answer_found(answer: Answered | None) -> Iterator[Check]:
    """What became of the cohort; None is one that is not for judges. Pure."""
    if answer is None:
        yield Check("judge", "failure", "a text is over the contract's limits", "lower data.prefix_tokens")
    elif answer.response is None:
        yield Check("judge", "failure", answer.dead or "no response", _RUBRIC)
    else:
        for axis, report in answer.response.axes.items():
            yield axis_found(axis, report, [each for each in answer.response.verdicts if each.axis == axis])


def axis_found(axis: str, report: AxisReport, verdicts: Sequence[Verdict]) -> Check:
    """Whether the teacher answers this axis' question in a way that can be read. Pure."""
    counts = {status: sum(verdict.status is status for verdict in verdicts) for status in Status}
    unreadable = sum(verdict.votes.unreadable for verdict in verdicts)
    by = report.provenance
    found = f"{counts[Status.OK]} of {len(verdicts)} verdicts, by {by.teacher}, rubric {by.rubric}"
    if report.position_consistency is not None:
        found += f", the same in both orders: {report.position_consistency:.0%}"
    reasons = "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts if verdict.reason))
    if counts[Status.FAILED] or not counts[Status.OK]:
        return Check(f"judge, {axis}", "failure", f"{found}; {reasons}", _RUBRIC)
    if counts[Status.ABSTAINED] or unreadable:
        told = f"{found}; {unreadable} answers cannot be read" + (f"; {reasons}" if reasons else "")
        return Check(f"judge, {axis}", "warning", told, _RUBRIC)
    return Check(f"judge, {axis}", "ok", found)


async def _answer(config: TrainConfig, codec: Codec, cohort: PolicyCohort, composition: Composition) -> Answered | None:
    """None if it is not for judges."""
    settings, run = config.judge, f"doctor.{secrets.token_hex(8)}"
    async with connect(settings.redis_url) as redis:
        queue = CohortQueue(redis, bound=settings.bound, namespace=settings.namespace, patience_s=PATIENCE_S)
        judges = Judges(queue, run, settings, codec, lambda what: None, lambda window: composition)
        try:
            if await judges.submit([cohort]):
                return None
            async with aclosing(judges.outcomes()) as outcomes:
                return await anext(outcomes)
        finally:
            await QueueOperations(redis, namespace=settings.namespace).purge_run(run)
