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

Guarantees: nothing waits for a judge but LEARN, and only when no batch is to be had without it; a cohort sampled at
version v is trained at a version <= v + S (see `buffer`); a cohort trains once, and only on verdicts the teacher
gave. If a task fails, all are cancelled and its error is raised.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from preceptor_client.contract import Candidate, Cohort, JudgeRequest, JudgeTask, Origin
from preceptor_client.queue import CohortQueue
from preceptor_trainer.buffer import CohortBuffer
from preceptor_trainer.checkpoint import TrainerState, prune, save_checkpoint, step_directory
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.objectives.selection import Dropped, select
from preceptor_trainer.rewrite_ahead import PreparedWindow, RewriteAhead
from preceptor_trainer.rollouts.engine import PolicyEngine, Rollout
from preceptor_trainer.telemetry import Telemetry


class TrainLoop:
    """One run. `engine` is None without rollouts, `queue` without verdicts. `run` returns when the steps are done."""

    def __init__(
        self,
        config: TrainConfig,
        codec: Codec,
        learner: Learner,
        prepared: RewriteAhead,
        engine: PolicyEngine | None,
        queue: CohortQueue | None,
        telemetry: Telemetry,
    ) -> None:
        self._config = config
        self._codec = codec
        self._learner = learner
        self._prepared = prepared
        self._engine = engine
        self._queue = queue
        self._telemetry = telemetry
        self._buffer: CohortBuffer[PolicyCohort] = CohortBuffer(config.cohorts_per_step, config.staleness.limit)
        self._version = 0
        # Verdicts of an earlier run of the same name must not be taken for this one's.
        self._session = secrets.token_hex(4)
        self._in_flight: dict[str, PolicyCohort] = {}
        self._entries: dict[str, str] = {}
        self._consumed: list[str] = []
        self._position = Position()
        self._samplings = 0
        self._dropped_in_a_row = 0

    async def run(self) -> None:
        """Train, then write `final`. Raises `TrainError`, and what Redis raises."""
        learn = asyncio.create_task(self._learn())
        tasks = {learn, asyncio.create_task(self._produce())}
        if self._queue:
            tasks.add(asyncio.create_task(self._receive(self._queue)))
        running = tasks
        try:
            while not learn.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await _end(tasks)

    async def _produce(self) -> None:
        async with aclosing(self._prepared.windows()) as prepared:
            while group := await self._admit(prepared):
                for cohort in await self._sample(group):
                    if self._queue is None:
                        await self._buffer.answer(cohort.id, cohort)
                    elif (task := self._task(cohort)) is None:
                        await self._drop(cohort.id, "unfit", "one candidate only, or a text over the contract's limits")
                    else:
                        self._in_flight[cohort.id] = cohort
                        await self._queue.submit(task)
        await self._buffer.close()

    async def _receive(self, queue: CohortQueue) -> None:
        async for stored in queue.responses(self._config.run):
            cohort = self._in_flight.pop(stored.response.cohort_id, None)
            if cohort is None:
                self._telemetry.count("unknown")
                await queue.forget(self._config.run, [stored.entry_id])
                continue
            self._telemetry.judged(stored.response)
            judged = select(cohort, stored.response)
            if isinstance(judged, Dropped):
                await queue.forget(self._config.run, [stored.entry_id])
                reasons = (verdict.reason for verdict in stored.response.verdicts if verdict.reason)
                await self._drop(cohort.id, judged.value, next(reasons, "none given"))
            else:
                self._dropped_in_a_row = 0
                self._entries[cohort.id] = stored.entry_id
                await self._buffer.answer(cohort.id, replace(cohort, judged=judged))

    async def _learn(self) -> None:
        for version in range(self._config.steps):
            with self._telemetry.clock("waiting"):
                batch = await self._buffer.take(version)
            if batch is None:
                raise TrainError(
                    f"the documents ran out after step {version} of {self._config.steps}: "
                    "lower steps or raise data.epochs"
                )
            with self._telemetry.clock("updating"):
                update = await asyncio.to_thread(self._learner.update, batch)
            with self._telemetry.clock("syncing"):
                if self._engine:
                    await self._engine.load(self._learner.model, self._learner.version)
            self._version = self._learner.version
            await self._buffer.release()
            self._consumed += [self._entries.pop(cohort.id) for cohort in batch if cohort.id in self._entries]
            self._telemetry.step(version, batch, update)
            every = self._config.checkpoint.every
            if every and self._version % every == 0:
                await self._checkpoint(step_directory(self._config.out, self._version))
                prune(self._config.out, self._config.checkpoint.keep)
            elif not every:
                await self._forget_consumed()
        await self._checkpoint(self._config.out / "final")

    async def _admit(self, prepared: AsyncIterator[PreparedWindow]) -> list[tuple[str, PreparedWindow]]:
        """As many windows as there are slots, at most a step's; none when the documents have run out."""
        room = min(await self._buffer.room(), self._config.cohorts_per_step)
        group: list[tuple[str, PreparedWindow]] = []
        while len(group) < room and (window := await anext(prepared, None)) is not None:
            id = f"{self._session}-{window.window.id}"
            self._buffer.state.admit(id, self._version)
            self._position = window.position
            group.append((id, window))
        return group

    async def _sample(self, group: Sequence[tuple[str, PreparedWindow]]) -> list[PolicyCohort]:
        """The cohorts of `group`, with their rollouts."""
        rollouts: Sequence[Sequence[Rollout]] = [()] * len(group)
        version = self._version
        if self._engine:
            config = self._config.rollouts
            self._samplings += 1
            with self._telemetry.clock("sampling"):
                sampled = await self._engine.sample(
                    [window.window.prefix for _, window in group],
                    k=self._config.pool.rollouts,
                    n_tokens=self._config.data.suffix_tokens,
                    temperature=config.temperature,
                    top_p=config.top_p,
                    seed=random.Random(f"{self._config.seed}/{self._samplings}").getrandbits(31),
                )
            rollouts, version = sampled.of_prefix, sampled.version
        cohorts = []
        for (id, window), of_prefix in zip(group, rollouts, strict=True):
            self._buffer.state.sampled(id, version)
            cohorts.append(PolicyCohort(id, window.window, version, self._candidates(window, of_prefix)))
        return cohorts

    def _candidates(self, window: PreparedWindow, rollouts: Sequence[Rollout]) -> tuple[TokenCandidate, ...]:
        candidates = []
        if self._config.pool.original:
            suffix = window.window.suffix
            candidates.append(TokenCandidate("original", Origin.ORIGINAL, suffix, self._codec.decode(suffix)))
        if window.rewrite:
            candidates.append(window.rewrite)
        for number, rollout in enumerate(rollouts):
            text = self._codec.decode(rollout.ids)
            candidates.append(TokenCandidate(f"rollout-{number}", Origin.ROLLOUT, rollout.ids, text, rollout.logps))
        return tuple(candidates)

    def _task(self, cohort: PolicyCohort) -> JudgeTask | None:
        """The question to the judges; None if there is nothing to compare or a text is over the contract's limits."""
        if len(cohort.candidates) < 2:
            return None
        judge = self._config.judge
        try:
            request = JudgeRequest(
                cohort=Cohort(
                    id=cohort.id,
                    prefix=self._codec.decode(cohort.window.prefix),
                    candidates=tuple(Candidate(id=c.id, origin=c.origin, text=c.text) for c in cohort.candidates),
                    reference=self._codec.decode(cohort.window.suffix),
                ),
                axes=judge.composition.axes,
                rubrics=dict(judge.rubrics),
                schedule=judge.schedule,
                order=judge.order,
                composition=judge.composition,
                sampling=judge.sampling,
                deadline_s=judge.deadline_s,
            )
        except ValidationError:
            return None
        return JudgeTask(run=self._config.run, request=request)

    async def _drop(self, id: str, what: str, reason: str) -> None:
        self._telemetry.count(what)
        await self._buffer.drop(id)
        self._dropped_in_a_row += 1
        if self._dropped_in_a_row >= self._config.judge.give_up_after:
            raise TrainError(
                f"{self._dropped_in_a_row} cohorts in a row could not be trained on; the last was {what} "
                f"(reason: {reason}). Check the pool, the rewrite service, the judge and its teacher"
            )

    async def _checkpoint(self, target: Path) -> None:
        state = TrainerState(
            run=self._config.run,
            session=self._session,
            step=self._version,
            optimizer=self._learner.optimizer.state_dict(),
            torch_rng=torch.get_rng_state(),
            samplings=self._samplings,
            stream_epoch=self._position.epoch,
            stream_documents=self._position.documents,
            in_flight=self._buffer.state.ids,
        )
        await asyncio.to_thread(save_checkpoint, target, self._learner.model, self._codec.tokenizer, state)
        await self._forget_consumed()

    async def _forget_consumed(self) -> None:
        if self._queue:
            await self._queue.forget(self._config.run, self._consumed)
        self._consumed.clear()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
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
