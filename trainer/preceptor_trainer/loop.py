"""The training loop: windows -> rewrites -> rollouts -> judge queue -> verdicts -> buffer -> update -> weights ->
rollouts.

        documents            policy engine  <------------- weights -----------+
            |                      |                                          |
     [rewrite ahead]          K rollouts                                      |
            |                      |                                          |
            +---> PRODUCE ---------+--> stream `cohorts` ~~> judges           |
                     ^                                         |              |
                     | a free slot                     stream `verdicts`      |
                     |                                         v              |
                  [buffer: (S + 1) x B slots] <----------- RECEIVE            |
                     |                                                        |
                     +--------------- batch of B ------------> LEARN ---------+

    task     produces             consumes           waits for                       unblocked by
    PRODUCE  cohorts in Redis     windows, slots     a slot; rewrites; the engine;   RECEIVE (drops), LEARN (release);
                                                     room in the queue               the teacher; judges
    RECEIVE  judged cohorts       verdicts           a verdict                       judges
    LEARN    weights, a line of   batches            a batch that keeps every        RECEIVE
             metrics, checkpoints                    cohort within its staleness
    TEND     lost cohorts again   -                  a doubt, or some seconds        Redis

Guarantees: nothing waits for a judge but LEARN, and only when no batch is to be had without it; then the loop says
which part it waits for. A cohort sampled at version v is trained at a version <= v + S (see `buffer`); a cohort ends
once, trained or dropped, with a line in the ledger, and is trained on only by verdicts the teacher gave. At the end as
many were issued as ended. A checkpoint is one moment of all of this: what was issued and had not ended then is issued
again by the run that resumes from it. If a task fails, the run is told to stop or a drift guard ends it, LEARN
finishes its update, a checkpoint is kept, and all are cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preceptor_client.queue import QueueStatus
from preceptor_trainer.board import Board
from preceptor_trainer.buffer import CohortBuffer
from preceptor_trainer.checkpoint import TrainerState, prune, rng_states, save_checkpoint, step_directory
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, PreparedWindow
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.errors import TrainError
from preceptor_trainer.growth import begun, grown
from preceptor_trainer.guards.watch import Watch
from preceptor_trainer.judges import Judges
from preceptor_trainer.learner import Learner, UpdateStats
from preceptor_trainer.ledger import LEDGER_FILE, CohortLedger
from preceptor_trainer.metrics import Held
from preceptor_trainer.objectives.selection import Dropped, select, select_by_origin
from preceptor_trainer.rewrite_ahead import RewriteAhead
from preceptor_trainer.rollouts.engine import PolicyEngine
from preceptor_trainer.sampling import Sampler
from preceptor_trainer.stall import Stall, StalledPart, diagnose
from preceptor_trainer.telemetry import METRICS_FILE, Telemetry
from preceptor_trainer.thoughts import ThoughtFormat
from preceptor_trainer.traces import CohortTraces

_STALL_S = 10.0
"""A learner that has waited so long for a batch says what for, and again after as long."""
_UNASKED = {
    Dropped.UNFIT: "candidates missing",
    Dropped.TIED: "the two are the same",
    Dropped.MALFORMED: "its thought is malformed",
}
"""Why a cohort is dropped that no judge is asked about."""


@dataclass(frozen=True)
class Parts:
    """What a loop works with. `engine` is None without rollouts, `judges` without verdicts."""

    codec: Codec
    thoughts: ThoughtFormat | None
    learner: Learner
    prepared: RewriteAhead
    engine: PolicyEngine | None
    judges: Judges | None
    queue_status: Callable[[], Awaitable[QueueStatus | None]]
    """How the queue stands; None if Redis does not say."""
    telemetry: Telemetry
    watch: Watch
    ledger: CohortLedger
    traces: CohortTraces
    board: Board


class TrainLoop:
    """One run, from the learner's version on; `resumed` is where an earlier part of it stopped."""

    def __init__(self, config: TrainConfig, parts: Parts, resumed: TrainerState | None = None) -> None:
        self._config = config
        self._resolved = config.model_dump(mode="json")
        self._tokenizer = parts.codec.tokenizer
        self._learner = parts.learner
        self._prepared = parts.prepared
        self._engine = parts.engine
        self._judges = parts.judges
        self._queue_status = parts.queue_status
        self._telemetry = parts.telemetry
        self._watch = parts.watch
        self._ledger = parts.ledger
        self._traces = parts.traces
        self._board = parts.board
        self._version = self._kept = self._learner.version
        self._buffer: CohortBuffer[PolicyCohort] = CohortBuffer(
            config.cohorts_per_step,
            config.staleness.limit,
            batches=config.steps - self._version,
            policy=config.staleness.policy,
            in_rounds=config.deterministic,
        )
        self._position = resumed.position if resumed else Position()
        self._sampler = Sampler(config, parts.codec, parts.engine, resumed.samplings if resumed else 0, parts.thoughts)
        self._growth = begun(config.pool, resumed.growth if resumed else None)
        self._issued: dict[str, PreparedWindow] = {}
        """Every cohort that was admitted and has not ended, in the order of admission."""
        self._drops: list[tuple[Position, str, str, str]] = []
        """Place in the documents, cohort, what became of it and why: of those dropped since the last update."""
        self._boundary: TrainerState | None = None
        """Of the moment after the last update, before its slots were free."""
        self._producing: Stall | None = None
        self._dropped_in_a_row = 0

    def held(self, state: Held) -> int:
        """Cohorts in the buffer. May be asked from any thread."""
        return self._buffer.state.ready if state == "ready" else self._buffer.state.outstanding

    async def run(self, stop: asyncio.Event) -> bool:
        """Train, then write `final`. False if `stop` came first: the newest checkpoint is then of the last step.

        Raises `TrainError`, `Drifted` among them, and what the queue raises; a checkpoint is kept first, unless the
        update itself failed.
        """
        halt = asyncio.Event()
        learn = asyncio.create_task(self._learn(halt))
        others = {asyncio.create_task(self._produce()), asyncio.create_task(_pass_on(stop, halt))}
        if self._judges:
            others |= {asyncio.create_task(self._receive(self._judges)), asyncio.create_task(self._judges.tend())}
        running: set[asyncio.Task[None] | asyncio.Task[bool]] = {learn, *others}
        failure: BaseException | None = None
        try:
            while not learn.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {learn}:
                    if error := task.exception():
                        failure = failure or error
                        halt.set()
        finally:
            await _end({learn, *others})
            self._write_drops()
        if self._boundary and self._boundary.step > self._kept:
            await self._keep(self._boundary)
        if not learn.result() and failure:
            raise failure
        return learn.result()

    async def _produce(self) -> None:
        async with aclosing(self._prepared.windows()) as prepared:
            while group := await self._admit(prepared):
                await self._submit(await self._sample(group))
        await self._buffer.close()

    async def _submit(self, cohorts: Sequence[PolicyCohort]) -> None:
        asked: list[PolicyCohort] = []
        for cohort in cohorts:
            prefer = self._config.prefer(cohort.window.id)
            if self._judges and prefer is None:
                asked.append(cohort)
            else:
                selected = select_by_origin(cohort, prefer)
                await self._take_in(cohort, selected, _UNASKED[selected] if isinstance(selected, Dropped) else "")
        if self._judges is None or not asked:
            return
        self._board.sampled(asked)
        with self._doing("queue", "there is no room in it"), self._traces.submitting(asked):
            unfit = await self._judges.submit(asked)
        for cohort in unfit:
            if cohort.candidates and all(candidate.malformed for candidate in cohort.candidates):
                await self._drop(cohort, Dropped.MALFORMED, "no thought in it is well formed")
            else:
                await self._drop(cohort, Dropped.UNFIT, "one candidate only, or a text over the contract's limits")

    async def _receive(self, judges: Judges) -> None:
        async for answered in judges.outcomes():
            cohort, response = answered.cohort, answered.response
            if response is None:
                await self._drop(cohort, "dead", answered.dead or "none given")
                continue
            self._telemetry.judged(response)
            self._board.judged(cohort.id, response)
            self._watch.judged(cohort, response)
            judged = select(cohort, response)
            selected = judged if isinstance(judged, Dropped) else replace(cohort, judged=judged)
            reasons = (verdict.reason for verdict in response.verdicts if verdict.reason)
            await self._take_in(cohort, selected, next(reasons, "none given"))

    async def _take_in(self, cohort: PolicyCohort, selected: PolicyCohort | Dropped, reason: str) -> None:
        if isinstance(selected, Dropped):
            await self._drop(cohort, selected, reason)
            return
        self._dropped_in_a_row = 0
        self._traces.buffered(cohort.id)
        await self._buffer.answer(cohort.id, selected)

    async def _learn(self, halt: asyncio.Event) -> bool:
        """False if `halt` came before the last step."""
        if drifted := await self._watch.begin(self._learner.model, self._version):
            raise drifted
        for version in range(self._version, self._config.steps):
            with self._telemetry.clock("waiting"):
                batch = await self._take(version, halt)
            if batch is None:
                return False
            self._boundary = None  # while the weights move there is nothing to keep
            with self._telemetry.clock("updating"), self._traces.updating(version, batch):
                update = await asyncio.to_thread(self._learner.update, batch)
            drifted = await self._watch.updated(self._learner.model, self._learner.version)
            self._boundary = self._trained(version, batch, update)
            if drifted:
                raise drifted
            if self._engine and self._learner.version < self._config.steps:  # nothing is sampled after the last
                with self._telemetry.clock("syncing"):
                    loading = self._engine.load(self._learner.model, self._learner.version)
                    if not await _unless(halt, loading):
                        return False
            self._version = self._learner.version
            await self._release()
            if (every := self._config.checkpoint.every) and self._version % every == 0:
                await self._keep(self._boundary)
        await self._save(self._config.out / "final", self._boundary or self._state())
        return True

    async def _take(self, version: int, halt: asyncio.Event) -> list[PolicyCohort] | None:
        """The batch of `version`; None if `halt` came first."""
        if halt.is_set():
            return None
        taking = asyncio.create_task(self._buffer.take(version))
        halting = asyncio.create_task(halt.wait())
        try:
            while not (await asyncio.wait((taking, halting), timeout=_STALL_S, return_when="FIRST_COMPLETED"))[0]:
                self._telemetry.stalled(await self._diagnose(), _STALL_S)
        finally:
            halting.cancel()
            if not taking.done():
                taking.cancel()
        if not taking.done():
            return None
        if (batch := taking.result()) is None:
            raise TrainError(
                f"the documents ran out after step {version} of {self._config.steps}: lower steps or raise data.epochs"
            )
        return batch

    def _trained(self, version: int, batch: Sequence[PolicyCohort], update: UpdateStats) -> TrainerState:
        """Write down what ended. The moment to go on from: with no staleness nothing is in flight."""
        self._write_drops()
        self._growth = grown(self._growth, batch, self._config.pool)
        for cohort in batch:
            del self._issued[cohort.id]
            self._ledger.trained(cohort, step=version + 1)
            self._board.trained(cohort, step=version + 1)
        self._telemetry.step(version, batch, update)
        return self._state()

    async def _release(self) -> None:
        """Free the slots of what was trained; what has become too old in the meantime is made up for."""
        for id in (stale := await self._buffer.release(self._version)):
            self._note_drop(id, "stale", f"no verdict before version {self._version}")
        if self._judges:
            await self._judges.withdraw(stale)

    async def _admit(self, prepared: AsyncIterator[PreparedWindow]) -> list[PreparedWindow]:
        """As many windows as there are slots, at most a step's; none when the documents have run out."""
        room = min(await self._buffer.room(), self._config.cohorts_per_step)
        if drifted := self._watch.without_update(self._version):
            raise drifted
        group: list[PreparedWindow] = []
        with self._doing("documents", "they are being read, or rewritten"):
            while len(group) < room and (window := await anext(prepared, None)) is not None:
                self._buffer.admit(window.window.id, self._version)
                self._issued[window.window.id] = window
                self._traces.begin(window.window.id)
                self._position = max(self._position, window.position)
                group.append(window)
        return group

    async def _sample(self, group: Sequence[PreparedWindow]) -> list[PolicyCohort]:
        since_s = time.time()
        with self._telemetry.clock("sampling"), self._doing("policy engine", "it is sampling"):
            cohorts = await self._sampler.sample(group, self._version, self._growth.rollouts)
        self._traces.sampled(cohorts, since_s)
        self._telemetry.sampled(cohorts)
        if malformed := sum(candidate.malformed for cohort in cohorts for candidate in cohort.candidates):
            self._telemetry.count("thought_malformed", malformed)
        for cohort in cohorts:
            await self._buffer.sampled(cohort.id, cohort.version)
        return cohorts

    async def _drop(self, cohort: PolicyCohort, what: str, reason: str) -> None:
        if not await self._buffer.drop(cohort.id):
            return  # it has become too old, which is counted already
        self._note_drop(cohort.id, what, reason)
        self._dropped_in_a_row += 1
        if self._dropped_in_a_row >= self._config.judge.give_up_after:
            raise TrainError(
                f"{self._dropped_in_a_row} cohorts in a row could not be trained on; the last was {what} "
                f"(reason: {reason}). Check the pool, the rewrite service, the judge and its teacher"
            )

    def _note_drop(self, id: str, what: str, reason: str) -> None:
        self._telemetry.count(what)
        self._traces.dropped(id, what)
        self._board.dropped(id, what, reason)
        self._drops.append((self._issued.pop(id).position, id, what, reason))

    def _write_drops(self) -> None:
        """In the order of the documents: that in which verdicts came is an accident."""
        for _, id, what, reason in sorted(self._drops):
            self._ledger.dropped(id, what, reason)
        self._drops.clear()

    @contextmanager
    def _doing(self, part: StalledPart, detail: str) -> Iterator[None]:
        self._producing = Stall(part, detail)
        yield
        self._producing = None

    async def _diagnose(self) -> Stall:
        if self._engine and self._engine.waiting:
            return Stall("policy engine", self._engine.waiting)
        if self._prepared.waiting:
            return Stall("rewrite service", self._prepared.waiting)
        return diagnose(
            self._producing,
            trouble=self._telemetry.redis_trouble,
            unanswered=self._judges.unanswered if self._judges else 0,
            longest_s=self._judges.longest_s if self._judges else 0.0,
            queue=await self._queue_status(),
        )

    def _state(self) -> TrainerState:
        """Of this moment. Weights and moments are read when it is saved, which the next update waits for."""
        return TrainerState(
            run=self._config.run,
            step=self._learner.version,
            rng=rng_states(),
            samplings=self._sampler.calls,
            growth=self._growth,
            position=self._position,
            in_flight=list(self._issued.values()),
            files={METRICS_FILE: self._telemetry.bytes, LEDGER_FILE: self._ledger.bytes},
            config=self._resolved,
            guards=self._watch.state,
        )

    async def _keep(self, state: TrainerState) -> None:
        """As one of the newest checkpoints."""
        await self._save(step_directory(self._config.out, state.step), state)
        prune(self._config.out, self._config.checkpoint.keep)

    async def _save(self, target: Path, state: TrainerState) -> None:
        with self._telemetry.clock("saving"):
            self._telemetry.flush_to_disk()
            self._ledger.flush_to_disk()
            moments = await asyncio.to_thread(self._learner.moments)
            await asyncio.to_thread(save_checkpoint, target, self._learner.model, self._tokenizer, state, moments)
        self._kept = state.step


async def _pass_on(stop: asyncio.Event, halt: asyncio.Event) -> None:
    await stop.wait()
    halt.set()


async def _unless(halt: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` was done before `halt` came, which breaks it off."""
    working, halting = asyncio.create_task(work), asyncio.create_task(halt.wait())
    try:
        await asyncio.wait((working, halting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        halting.cancel()
        await asyncio.gather(working, halting, return_exceptions=True)


async def _end(tasks: set[asyncio.Task[None] | asyncio.Task[bool]]) -> None:
    """Cancel `tasks` and wait until they have ended."""
    running = {task for task in tasks if not task.done()}
    while running:
        # Again and again: `asyncio.wait_for` of Python 3.11, which redis-py sends with, can lose a cancellation.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # read, so that a second failure is not reported as never retrieved
