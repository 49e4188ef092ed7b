"""The board, on a real Redis."""

from __future__ import annotations

import json

import pytest
from redis.asyncio import Redis

from board_runs import an_info
from preceptor_client.board import (
    KEPT_S,
    MAX_COHORT_BYTES,
    MAX_RUNS,
    BoardReader,
    BoardWriter,
    UnknownRunError,
    fitted,
)
from preceptor_client.contract import (
    MAX_COHORTS,
    MAX_ROWS,
    AxisReport,
    Candidate,
    Cohort,
    Comparison,
    EndedCohort,
    JudgeResponse,
    Provenance,
    Sampling,
    Usage,
)

ROW = {"step": 1, "loss": 0.5}


def an_ended(text: str = "blue", *, candidates: int = 2, prefix: str = "the sky is") -> EndedCohort:
    ids = [f"rollout-{number}" for number in range(candidates)]
    provenance = Provenance(teacher="t", revision="r", rubric="q", rubric_hash="h", sampling=Sampling())
    comparisons = tuple(
        Comparison(first=one, second=other, outcome="first", rationale=text[:200])
        for one in ids
        for other in ids
        if one != other
    )
    report = AxisReport(provenance=provenance, usage=Usage(), comparisons=comparisons)
    return EndedCohort.model_construct(
        cohort=Cohort.model_construct(
            id="0-1",
            prefix=prefix,
            candidates=tuple(Candidate.model_construct(id=id, text=text) for id in ids),
            reference=text,
        ),
        outcome="trained",
        step=3,
        version=2,
        response=JudgeResponse(cohort_id="0-1", verdicts=(), axes={"quality": report}, elapsed_s=0.1),
    )


def a_writer(redis: Redis, run: str = "sip-1", *, rows: int = 5, cohorts: int = 3) -> BoardWriter:
    return BoardWriter(redis, run, namespace="preceptor", rows=rows, cohorts=cohorts)


@pytest.fixture
def reader(redis: Redis) -> BoardReader:
    return BoardReader(redis, namespace="preceptor")


async def test_what_is_pinned_is_read_and_read_on_after_a_mark(redis: Redis, reader: BoardReader) -> None:
    writer, ended = a_writer(redis), fitted(an_ended())
    assert ended is not None
    await writer.write(an_info(), [json.dumps(ROW).encode()], [ended])
    assert await reader.runs() == [an_info()]
    first = await reader.rows("sip-1")
    assert first.rows == (ROW,)
    assert (await reader.cohorts("sip-1")).cohorts[0] == an_ended()
    assert (await reader.rows("sip-1", first.next)).rows == ()
    await writer.write(an_info(step=2), [b'{"step": 2}'])
    assert (await reader.rows("sip-1", first.next)).rows == ({"step": 2},)


async def test_only_the_newest_rows_and_cohorts_of_the_newest_runs_are_kept_and_all_of_it_expires(
    redis: Redis, reader: BoardReader
) -> None:
    ended = fitted(an_ended())
    assert ended is not None
    await a_writer(redis).write(an_info(), [b'{"step": %d}' % step for step in range(1, 9)], [ended] * 7)
    assert [row["step"] for row in (await reader.rows("sip-1")).rows] == [4, 5, 6, 7, 8]
    assert len((await reader.cohorts("sip-1")).cohorts) == 3
    ages = [await redis.ttl(key) for key in await redis.keys("*")]
    assert len(ages) == 4
    assert all(KEPT_S - 60 < age <= KEPT_S for age in ages)
    for number in range(MAX_RUNS + 1):
        await a_writer(redis, f"run-{number}").write(an_info(f"run-{number}", seen_at=2.0 + number))
    names = [info.run for info in await reader.runs()]
    assert (len(names), names[0], names[-1]) == (MAX_RUNS, f"run-{MAX_RUNS}", "run-1")


async def test_an_answer_is_one_page(redis: Redis, reader: BoardReader) -> None:
    ended = fitted(an_ended())
    assert ended is not None
    count = MAX_ROWS + 3
    writer = a_writer(redis, rows=count, cohorts=MAX_COHORTS + 1)
    await writer.write(an_info(), [b'{"step": %d}' % step for step in range(count)], [ended] * (MAX_COHORTS + 1))
    page = await reader.rows("sip-1")
    assert (len(page.rows), len((await reader.rows("sip-1", page.next)).rows)) == (MAX_ROWS, 3)
    cohorts = await reader.cohorts("sip-1")
    assert (len(cohorts.cohorts), len((await reader.cohorts("sip-1", cohorts.next)).cohorts)) == (MAX_COHORTS, 1)


async def test_a_run_that_starts_again_takes_down_what_is_not_its_own(redis: Redis, reader: BoardReader) -> None:
    ended = fitted(an_ended())
    assert ended is not None
    await a_writer(redis).write(an_info(), [b'{"step": 1}', b'{"step": 2}'], [ended])
    await a_writer(redis).write(an_info(), [b'{"step": 1}'], take_down=["rows"])
    assert (await reader.rows("sip-1")).rows == ({"step": 1},)
    assert len((await reader.cohorts("sip-1")).cohorts) == 1
    await a_writer(redis).write(an_info(), take_down=["rows", "cohorts"])
    assert (await reader.rows("sip-1")).rows == ()
    assert (await reader.cohorts("sip-1")).cohorts == ()


async def test_a_run_that_nobody_has_heard_of_is_told(reader: BoardReader) -> None:
    for read in (reader.rows, reader.cohorts):
        with pytest.raises(UnknownRunError, match="no run sip-1"):
            await read("sip-1")


async def test_what_somebody_else_wrote_is_passed_over(redis: Redis, reader: BoardReader) -> None:
    await a_writer(redis).write(an_info(), [b"[]", b"{", b"\xff", b'{"a": "\\ud800"}', b'{"step": 1}'], [b"{}", b"x"])
    await redis.zadd("preceptor:board", {"strange": 9.0, "gone": 8.0})
    await redis.set("preceptor:board:strange", b"\xff{")
    await redis.xadd("preceptor:board:sip-1:rows", {"other": "x"})
    assert [info.run for info in await reader.runs()] == ["sip-1"]
    assert (await reader.rows("sip-1")).rows == ({"step": 1},)
    assert (await reader.cohorts("sip-1")).cohorts == ()


async def test_what_is_no_number_is_null_for_the_page(redis: Redis, reader: BoardReader) -> None:
    await a_writer(redis).write(an_info(), [b'{"loss": NaN}'])
    assert json.loads((await reader.rows("sip-1")).model_dump_json())["rows"] == [{"loss": None}]


@pytest.mark.parametrize(("candidates", "comparisons"), [(2, True), (64, False)])
def test_a_large_cohort_is_clipped_until_it_is_small_enough(candidates: int, comparisons: bool) -> None:
    raw = fitted(an_ended("é" * 70_000, candidates=candidates, prefix="start " + "p" * 70_000 + " end"))
    assert raw is not None
    assert len(raw) <= MAX_COHORT_BYTES
    kept = EndedCohort.model_validate_json(raw)
    assert kept.clipped
    assert kept.cohort.prefix.startswith("…")
    assert kept.cohort.prefix.endswith(" end")
    assert kept.cohort.candidates[0].text.endswith("é…")
    assert kept.response is not None
    assert bool(kept.response.axes["quality"].comparisons) == comparisons


def test_a_small_cohort_is_kept_whole() -> None:
    raw = fitted(an_ended())
    assert raw is not None
    assert EndedCohort.model_validate_json(raw) == an_ended()
