"""The board: where trainers pin what their runs show, in the queue's Redis, for the services to read.

    trainer -> BoardWriter -> `board`, `board:<run>[:rows|:cohorts]` -> BoardReader -> `/v1/runs` -> the page

In: a run's `RunInfo`, its rows (the lines of `metrics.jsonl`) and cohorts that have ended. Out: the same, to any number
of readers, in pages.
Guarantees: all of it is bounded: so many runs, rows and cohorts, no cohort above `MAX_COHORT_BYTES`, and everything of
a run is gone `KEPT_S` after its last word. What somebody else wrote there is passed over.
Raises `redis.exceptions.RedisError` and OSError when Redis cannot be used: nothing here is repeated or waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from redis.asyncio import Redis

from preceptor_client.contract import (
    MAX_COHORTS,
    MAX_ROWS,
    Cohort,
    EndedCohort,
    JudgeResponse,
    RunCohorts,
    RunInfo,
    RunRows,
)
from preceptor_client.queue.steps import IN_BYTES

KEPT_S = 7 * 24 * 3600
MAX_RUNS = 50
MAX_COHORT_BYTES = 64 * 1024
"""So that a text beyond the contract's limit is always clipped."""
_CLIPS = (4_000, 1_000, 200)
"""Characters of a text, tried in turn until a cohort is small enough."""
_FIRST = "0-0"
ReadT = TypeVar("ReadT")
_INFO, _COHORT = TypeAdapter(RunInfo), TypeAdapter(EndedCohort)
_ROW = TypeAdapter(dict[str, JsonValue])


class UnknownRunError(LookupError):
    """No such run has said anything lately."""


class BoardKeys:
    """Where the board of `namespace` lies in Redis."""

    def __init__(self, namespace: str) -> None:
        self.board = f"{namespace}:board"
        """Runs by the time of their last word."""

    def info(self, run: str) -> str:
        """A `RunInfo`."""
        return f"{self.board}:{run}"

    def rows(self, run: str) -> str:
        """A stream."""
        return f"{self.board}:{run}:rows"

    def cohorts(self, run: str) -> str:
        """A stream."""
        return f"{self.board}:{run}:cohorts"


class BoardWriter:
    """What one run pins to the board: its newest `rows` and `cohorts`."""

    def __init__(self, redis: Redis, run: str, *, namespace: str, rows: int, cohorts: int) -> None:
        self._redis = redis
        self._run = run
        self._keys = BoardKeys(namespace)
        self._bounds = {self._keys.rows(run): rows, self._keys.cohorts(run): cohorts}

    async def write(
        self,
        info: RunInfo,
        rows: Iterable[bytes] = (),
        cohorts: Iterable[bytes] = (),
        *,
        take_down: Iterable[Literal["rows", "cohorts"]] = (),
    ) -> None:
        """How the run stands, and what has come since. What is to `take_down` goes first: rows may be of steps that a
        resumed run takes again, cohorts of a run that was replaced."""
        keys, run = self._keys, self._run
        async with self._redis.pipeline(transaction=True) as pipe:
            for what in take_down:
                pipe.delete(keys.rows(run) if what == "rows" else keys.cohorts(run))
            pipe.set(keys.info(run), info.model_dump_json(), ex=KEPT_S)
            pipe.zadd(keys.board, {run: info.seen_at})
            pipe.zremrangebyrank(keys.board, 0, -MAX_RUNS - 1)
            pipe.expire(keys.board, KEPT_S)
            for key, entries in ((keys.rows(run), rows), (keys.cohorts(run), cohorts)):
                for entry in entries:
                    pipe.xadd(key, {"json": entry}, maxlen=self._bounds[key], approximate=False)
                pipe.expire(key, KEPT_S)
            await pipe.execute()


class BoardReader:
    """Everything that is pinned in `namespace`."""

    def __init__(self, redis: Redis, *, namespace: str) -> None:
        self._redis = redis
        self._keys = BoardKeys(namespace)

    async def runs(self) -> list[RunInfo]:
        """The runs, those heard of last first."""
        names: Any = await self._redis.zrevrange(self._keys.board, 0, MAX_RUNS - 1)
        if not names:
            return []
        keys = [self._keys.info(name) for name in names]
        found: Any = await self._redis.execute_command("MGET", *keys, **IN_BYTES)  # type: ignore[no-untyped-call]
        return [info for raw in found if raw is not None and (info := _read(_INFO, raw))]

    async def rows(self, run: str, after: str = _FIRST) -> RunRows:
        """At most `MAX_ROWS` rows. Raises `UnknownRunError`."""
        entries, last = await self._page(run, self._keys.rows(run), after, MAX_ROWS)
        return RunRows(rows=tuple(row for raw in entries if (row := _read(_ROW, raw)) is not None), next=last)

    async def cohorts(self, run: str, after: str = _FIRST) -> RunCohorts:
        """At most `MAX_COHORTS` cohorts. Raises `UnknownRunError`."""
        entries, last = await self._page(run, self._keys.cohorts(run), after, MAX_COHORTS)
        return RunCohorts(cohorts=tuple(each for raw in entries if (each := _read(_COHORT, raw))), next=last)

    async def _page(self, run: str, key: str, after: str, count: int) -> tuple[list[bytes], str]:
        entries: Any = await self._redis.execute_command(  # type: ignore[no-untyped-call]
            "XRANGE", key, f"({after}", "+", "COUNT", count, **IN_BYTES
        )
        if not entries and not await self._redis.exists(self._keys.info(run)):
            raise UnknownRunError(f"there is no run {run} on the board")
        last = entries[-1][0].decode() if entries else after
        return [fields.get(b"json", b"") for _, fields in entries], last


def fitted(ended: EndedCohort) -> bytes | None:
    """JSON of at most `MAX_COHORT_BYTES`, with shorter texts and at last without comparisons if it has to be; None if
    that is not enough."""
    if len(whole := ended.model_dump_json().encode()) <= MAX_COHORT_BYTES:
        return whole
    for limit in _CLIPS:
        clipped = _clipped(ended, limit, comparisons=limit != _CLIPS[-1]).model_dump_json().encode()
        if len(clipped) <= MAX_COHORT_BYTES:
            return clipped
    return None


def _clipped(ended: EndedCohort, limit: int, *, comparisons: bool) -> EndedCohort:
    def cut(text: str | None) -> str | None:
        return text if text is None or len(text) <= limit else text[: limit - 1] + "…"

    def cohort(whole: Cohort) -> Cohort:
        candidates = tuple(each.model_copy(update={"text": cut(each.text)}) for each in whole.candidates)
        # What a prefix ends with is what the candidates continue.
        prefix = whole.prefix if len(whole.prefix) <= limit else "…" + whole.prefix[1 - limit :]
        return whole.model_copy(update={"prefix": prefix, "candidates": candidates, "reference": cut(whole.reference)})

    def response(whole: JudgeResponse) -> JudgeResponse:
        verdicts = tuple(each.model_copy(update={"rationale": cut(each.rationale)}) for each in whole.verdicts)
        axes = {
            axis: report.model_copy(
                update={
                    "comparisons": tuple(
                        each.model_copy(update={"rationale": cut(each.rationale)}) for each in report.comparisons
                    )
                    if comparisons
                    else ()
                }
            )
            for axis, report in whole.axes.items()
        }
        return whole.model_copy(update={"verdicts": verdicts, "axes": axes, "panel": {}})

    return ended.model_copy(
        update={
            "cohort": cohort(ended.cohort),
            "response": ended.response and response(ended.response),
            "clipped": True,
        }
    )


def _read(kind: TypeAdapter[ReadT], raw: bytes) -> ReadT | None:
    try:
        return kind.validate_json(raw)
    except ValidationError:
        return None
