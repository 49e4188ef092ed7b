"""A training run that shows itself on the board, told by a test what happens in it: the trainer's own telemetry and
board, on a real Redis, without a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preceptor_client.contract import (
    AxisReport,
    Comparison,
    Composite,
    JudgeResponse,
    Order,
    Origin,
    Provenance,
    Sampling,
    ScheduleName,
    Status,
    Usage,
    Verdict,
    Votes,
)
from preceptor_trainer.board import Board, open_board
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.learner import UpdateStats
from preceptor_trainer.stall import Stall, StalledPart
from preceptor_trainer.telemetry import Telemetry


class Characters:
    """A tokenizer whose tokens are characters."""

    eos_token_id = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


def a_config(out: Path, redis_url: str, namespace: str, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "run": "sip",
        "out": out,
        "steps": 40,
        "cohorts_per_step": 2,
        "model": {"path": "unused"},
        "data": {"path": "unused"},
        "pool": {"rollouts": 2, "rewrite": True},
        "judge": {"redis_url": redis_url, "namespace": namespace},
        "board": {"every": 1},
    }
    return TrainConfig.model_validate({**values, **changes})


def a_cohort(number: int, version: int, *, prefix: str = "anna lives in", **texts: str) -> PolicyCohort:
    """With an original, a rewrite and two rollouts; `texts` are theirs (`rollout_0`)."""
    said = {"original": "rome .", "rewrite": "paris .", "rollout_0": "paris paris .", "rollout_1": "oslo ."} | texts
    candidates = tuple(
        TokenCandidate(name.replace("_", "-"), Origin(name.partition("_")[0]), (1,), text)
        for name, text in said.items()
    )
    return PolicyCohort(
        f"0-{number}", Window(0, number, tuple(map(ord, prefix)), tuple(map(ord, "rome ."))), version, candidates
    )


def an_answer(cohort: PolicyCohort, scores: Mapping[str, float], *, said: str = "It is true.") -> JudgeResponse:
    """The candidates' `scores` on quality and safety, with reasons. The first pair's verdict turns with the order; a
    candidate without a score was abstained on."""
    ids = [candidate.id for candidate in cohort.candidates]
    verdicts = [
        Verdict(
            candidate_id=id,
            axis=axis,
            status=Status.OK,
            score=scores[id],
            votes=Votes(counts={"won": 2, "lost": 1}),
            rationale=said,
        )
        if id in scores
        else Verdict(candidate_id=id, axis=axis, status=Status.ABSTAINED, reason=f"votes split: {said}")
        for axis in ("quality", "safety")
        for id in ids
    ]
    pairs = [(one, other) for at, one in enumerate(ids) for other in ids[at + 1 :]]
    comparisons = [
        Comparison(
            first=first,
            second=second,
            outcome="first"
            if (first, second) in (pairs[0], pairs[0][::-1]) or scores.get(first, 0) > scores.get(second, 0)
            else "second",
            rationale=said,
        )
        for pair in pairs
        for first, second in (pair, pair[::-1])
    ]

    def report(rubric: str, *, pairwise: bool) -> AxisReport:
        provenance = Provenance(
            teacher="qwen3-4b",
            revision="r",
            rubric=rubric,
            rubric_hash="0123456789abcdef",
            sampling=Sampling(),
            schedule=ScheduleName.ALL_PAIRS if pairwise else None,
            order=Order.BOTH if pairwise else None,
        )
        return AxisReport(
            provenance=provenance,
            usage=Usage(calls=12, prompt_tokens=900, completion_tokens=40),
            position_consistency=0.83 if pairwise else None,
            comparisons=tuple(comparisons) if pairwise else (),
        )

    return JudgeResponse(
        cohort_id=cohort.id,
        verdicts=tuple(verdicts),
        axes={
            "quality": report("instruct/quality", pairwise=True),
            "safety": report("instruct/safety", pairwise=False),
        },
        composites=tuple(
            Composite(candidate_id=id, score=scores.get(id), reason=None if id in scores else "quality abstained")
            for id in ids
        ),
        elapsed_s=0.4,
    )


@dataclass
class ShownRun:
    """A run in a thread of its own."""

    name: str
    telemetry: Telemetry
    board: Board
    loop: asyncio.AbstractEventLoop
    steps: int = 0

    def step(self, *cohorts: tuple[PolicyCohort, JudgeResponse]) -> None:
        """An update on these."""
        self._call(self._step, cohorts)

    def drop(self, cohort: PolicyCohort, response: JudgeResponse, reason: str) -> None:
        """It ties."""

        def dropped() -> None:
            self.board.sampled([cohort])
            self.board.judged(cohort.id, response)
            self.telemetry.count("tied")
            self.board.dropped(cohort.id, "tied", reason)

        self._call(dropped)

    def stall(self, part: StalledPart) -> None:
        """The learner waits."""
        self._call(self.telemetry.stalled, Stall(part, "nobody there"), 10.0)

    def _step(self, cohorts: list[tuple[PolicyCohort, JudgeResponse]]) -> None:
        batch = []
        for cohort, response in cohorts:
            self.board.sampled([cohort])
            self.board.judged(cohort.id, response)
            self.telemetry.judged(response)
            scores = {one.candidate_id: one.score for one in response.composites if one.score is not None}
            of_id = {candidate.id: candidate for candidate in cohort.candidates}
            best, worst = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
            axes = {"quality": scores, "safety": {id: 1 - (1 - score) / 2 for id, score in scores.items()}}
            batch.append(replace(cohort, judged=Judged(scores, axes, of_id[best], of_id[worst])))
        for what in ("sampling", "waiting", "updating"):
            with self.telemetry.clock(what):
                pass
        self.telemetry.step(self.steps, batch, UpdateStats(1 / (self.steps + 2), 1e-3, 1.0, 64, {}))
        self.steps += 1
        for cohort in batch:
            self.board.trained(cohort, step=self.steps)

    def _call(self, what: Any, *arguments: Any) -> None:
        async def call() -> None:
            what(*arguments)

        asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@contextmanager
def shown_run(config: TrainConfig, done: int = 0) -> Iterator[ShownRun]:
    """A run after step `done`, for the length of the `with` block; it ends as a run that is stopped."""
    config.out.mkdir(parents=True, exist_ok=True)
    opened: list[ShownRun] = []
    ready, end = threading.Event(), asyncio.Event()

    async def live() -> None:
        async with AsyncExitStack() as resources:
            telemetry = resources.enter_context(Telemetry(config.out, config.run, config.steps))
            board = open_board(config, Codec(Characters()), step=done, resources=resources)
            telemetry.followed_by(board)
            await resources.enter_async_context(board)
            opened.append(ShownRun(board.run, telemetry, board, asyncio.get_running_loop(), done))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield opened[0]
    finally:
        opened[0].loop.call_soon_threadsafe(end.set)
        thread.join()
