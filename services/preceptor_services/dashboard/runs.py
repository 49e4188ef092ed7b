"""The routes of training runs: which there are, their figures, and cohorts that have ended.

In: what trainers pinned to the board (see `preceptor_client.board`), and the queue. Out: a router, the same in every
replica of every service, as all of it lies in Redis. It only reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query
from redis.exceptions import RedisError

from preceptor_client.board import BoardReader, UnknownRunError
from preceptor_client.contract import (
    API_VERSION,
    Identifier,
    Mark,
    RunCohorts,
    RunList,
    RunOnBoard,
    RunQueue,
    RunRows,
)
from preceptor_client.queue import QueueMisfit, QueueOperations, QueueStatus, QueueUnavailable
from preceptor_services.web import ProblemError, problem_docs

_RETRY_AFTER_S = 5
_FIRST = "0-0"
RunId = Annotated[Identifier, Path(description="The run, as `/v1/runs` names it.")]
After = Annotated[Mark, Query(description="Only what came after this one: the `next` of the answer before.")]


def runs_router(board: BoardReader, operations: QueueOperations, where: str) -> APIRouter:
    """`/v1/runs` over `board`, which lies in the Redis at `where`."""
    router = APIRouter(prefix=f"/{API_VERSION}/runs", tags=["runs"])

    @contextmanager
    def problems() -> Iterator[None]:
        try:
            yield
        except UnknownRunError as error:
            raise ProblemError(404, f"{error}; it may have ended more than a week ago") from None
        except (RedisError, OSError, QueueUnavailable, QueueMisfit) as error:
            text = f"the Redis at {where}, through which trainers show their runs, cannot be used (queue.url): {error}"
            raise ProblemError(503, text, retry_after_s=_RETRY_AFTER_S) from None

    @router.get("", responses=problem_docs(503), summary="The training runs, and the queue")
    async def runs() -> RunList:
        """Of the last week, those heard of last first. A run that asks no judge uses no Redis and is not among them."""
        with problems():
            infos, status = await board.runs(), await operations.status()
        return RunList(
            at=time.time(),
            runs=tuple(RunOnBoard(info=info, queue=_of_run(info.run, status)) for info in infos),
            queue=RunQueue(
                waiting=status.waiting,
                in_flight=status.in_flight,
                answered=sum(each.answered for each in status.runs.values()),
                dead=status.dead,
                oldest_s=status.oldest_s,
            ),
            workers=status.workers,
        )

    @router.get("/{run}/rows", responses=problem_docs(404, 422, 503), summary="A run's figures, step by step")
    async def rows(run: RunId, after: After = _FIRST) -> RunRows:
        """The newest lines of its `metrics.jsonl`, in pages."""
        with problems():
            return await board.rows(run, after)

    @router.get("/{run}/cohorts", responses=problem_docs(404, 422, 503), summary="Cohorts of a run that have ended")
    async def cohorts(run: RunId, after: After = _FIRST) -> RunCohorts:
        """A sample of the newest, in pages: texts, verdicts, comparisons, and what was chosen and rejected."""
        with problems():
            return await board.cohorts(run, after)

    return router


def _of_run(run: str, status: QueueStatus) -> RunQueue:
    """Over the parts of a run: it has a new one after each resume."""
    parts = [each for name, each in status.runs.items() if name.rpartition(".")[0] == run]
    ages = [part.oldest_s for part in parts if part.oldest_s is not None]
    return RunQueue(
        waiting=sum(part.waiting for part in parts),
        in_flight=sum(part.in_flight for part in parts),
        answered=sum(part.answered for part in parts),
        dead=sum(part.dead for part in parts),
        oldest_s=max(ages, default=None),
    )
