"""What a run shows while it trains: its rows and a sample of its cohorts, for the services' page.

In: the lines of `metrics.jsonl` as they are written, and the cohorts as they are sampled, judged and end. Out: the same
on the board in Redis (see `preceptor_client.board`), and a word every few seconds that the run is alive.
Guarantees: nothing of the training waits for it or fails by it. While Redis is away the newest rows and cohorts are
held, as many as the board would keep; older ones are lost to the page, and to nothing else. A run without judges has no
Redis and shows nothing. A resumed run shows the rows of the part that it goes on from.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from redis.exceptions import RedisError

from preceptor_client.board import BoardWriter, fitted
from preceptor_client.contract import Candidate, Cohort, EndedCohort, JudgeResponse, RunInfo, RunState
from preceptor_client.queue import redis_from_url
from preceptor_client.queue.riding import end
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import BoardConfig, TrainConfig
from preceptor_trainer.resume import name_in_redis
from preceptor_trainer.telemetry import METRICS_FILE

_WORD_EVERY_S = 5.0
_AWAY_S = 1.0
"""No event tells that a Redis is back."""
_REDIS_S = 2.0
"""Longest wait for an answer of Redis."""
_LAST_WORD_S = 5.0
"""Longest that the end of a run waits until its last word is written."""


@dataclass
class _Open:
    cohort: PolicyCohort
    response: JudgeResponse | None = None


class Board:
    """Open it with `async with`; without a `writer` it shows nothing. `earlier` are the rows that there are."""

    def __init__(
        self,
        config: BoardConfig,
        codec: Codec,
        info: RunInfo,
        writer: BoardWriter | None = None,
        earlier: Sequence[bytes] = (),
    ) -> None:
        self._every = config.every if writer and config.cohorts else 0
        self._codec = codec
        self._info = info.model_copy(update={"every": self._every})
        self._writer = writer
        self._rows: deque[bytes] = deque(earlier, maxlen=config.rows)
        self._cohorts: deque[bytes] = deque(maxlen=max(1, config.cohorts))
        self._open: dict[str, _Open] = {}
        self._take_down: tuple[Literal["rows", "cohorts"], ...] = ("rows",) if info.step else ("rows", "cohorts")
        self._news = asyncio.Event()
        self._closing = False
        self._publishing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._writer:
            self._publishing = asyncio.create_task(self._publish(self._writer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._publishing is None:
            return
        if kind is None:
            state = RunState.FINISHED if self._info.step == self._info.steps else RunState.STOPPED
        else:
            state = RunState.FAILED if issubclass(kind, Exception) else RunState.STOPPED
        self._closing = True
        self._change(state=state, waiting_for=None)
        await asyncio.wait({self._publishing}, timeout=_LAST_WORD_S)
        await end(self._publishing)

    @property
    def run(self) -> str:
        """What Redis knows the run by."""
        return self._info.run

    def row(self, line: Mapping[str, Any]) -> None:
        """A step is done; `line` is what `metrics.jsonl` says of it."""
        self._change(step=line["step"], waiting_for=None)
        if self._writer:
            self._rows.append(json.dumps(line).encode())

    def waits(self, part: str) -> None:
        """The learner has been waiting for `part`."""
        self._change(waiting_for=part)

    def shows(self, id: str) -> bool:
        """Whether the cohort `id` is one of those that are shown."""
        return bool(self._every) and zlib.crc32(id.encode()) % self._every == 0

    def sampled(self, cohorts: Sequence[PolicyCohort]) -> None:
        """These go to the judges."""
        self._open |= {cohort.id: _Open(cohort) for cohort in cohorts if self.shows(cohort.id)}

    def judged(self, id: str, response: JudgeResponse) -> None:
        """The answer to a cohort."""
        if id in self._open:
            self._open[id].response = response

    def trained(self, cohort: PolicyCohort, *, step: int) -> None:
        """Update `step`, from 1, trained on `cohort`."""
        if judged := cohort.judged:
            ids = {"chosen": judged.chosen.id, "rejected": judged.rejected.id}
            self._ended(cohort.id, outcome="trained", step=step, scores=judged.scores, **ids)

    def dropped(self, id: str, outcome: str, reason: str) -> None:
        """The cohort `id` will not be trained on."""
        self._ended(id, outcome=outcome, reason=reason)

    def _ended(self, id: str, **how: Any) -> None:
        if (known := self._open.pop(id, None)) is None:
            return
        window, candidates = known.cohort.window, known.cohort.candidates
        # Unchecked: a text beyond the contract's limits, for which it may have been dropped, is yet to be clipped.
        shown = fitted(
            EndedCohort.model_construct(
                cohort=Cohort.model_construct(
                    id=id,
                    prefix=self._codec.decode(window.prefix),
                    candidates=tuple(
                        Candidate.model_construct(id=one.id, origin=one.origin, text=one.text) for one in candidates
                    ),
                    reference=self._codec.decode(window.suffix),
                ),
                version=known.cohort.version,
                response=known.response,
                **how,
            )
        )
        if shown is not None:
            self._cohorts.append(shown)
            self._news.set()

    def _change(self, **changes: Any) -> None:
        self._info = self._info.model_copy(update=changes)
        self._news.set()

    async def _publish(self, writer: BoardWriter) -> None:
        while True:
            closing = self._closing  # what is written after this is all there is
            self._news.clear()
            taken = await self._flush(writer)
            if closing:
                return
            if not taken:
                await asyncio.sleep(_AWAY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_WORD_EVERY_S):
                    await self._news.wait()

    async def _flush(self, writer: BoardWriter) -> bool:
        """Whether Redis took what there is; what it did not is tried again."""
        rows, self._rows = self._rows, deque(maxlen=self._rows.maxlen)
        cohorts, self._cohorts = self._cohorts, deque(maxlen=self._cohorts.maxlen)
        info = self._info.model_copy(update={"seen_at": time.time()})
        taken = False
        try:
            await writer.write(info, rows, cohorts, take_down=self._take_down)
            taken, self._take_down = True, ()
        except (RedisError, OSError):
            pass
        finally:
            if not taken:
                self._rows = deque([*rows, *self._rows], maxlen=rows.maxlen)
                self._cohorts = deque([*cohorts, *self._cohorts], maxlen=cohorts.maxlen)
        return taken


def open_board(config: TrainConfig, codec: Codec, *, step: int, resources: AsyncExitStack) -> Board:
    """The board of a run that goes on after `step`, with the rows that its folder holds."""
    settings, now = config.board, time.time()
    shown = settings.enabled and config.judged
    info = RunInfo(
        run=name_in_redis(config.out, config.run) if shown else config.run,
        name=config.run,
        state=RunState.RUNNING,
        started_at=now,
        seen_at=now,
        step=step,
        steps=config.steps,
        objective=config.objective.name,
        axes=config.judge.axes,
        cohorts_per_step=config.cohorts_per_step,
        rollouts=config.pool.rollouts,
        rewrites=config.pool.rewrite,
        staleness_limit=config.staleness.limit,
        every=settings.every,
    )
    if not shown:
        return Board(settings, codec, info)
    redis = redis_from_url(config.judge.redis_url, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S)
    resources.push_async_callback(redis.aclose)
    writer = BoardWriter(
        redis, info.run, namespace=config.judge.namespace, rows=settings.rows, cohorts=settings.cohorts
    )
    return Board(settings, codec, info, writer, (config.out / METRICS_FILE).read_bytes().split(b"\n")[:-1])
