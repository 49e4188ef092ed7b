from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from preceptor_client.contract import (
    Health,
    Origin,
    Problem,
    Provenance,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Sampling,
    Usage,
)
from preceptor_client.errors import ServiceUnreachableError, UnexpectedResponseError, status_error
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PreparedWindow, TokenCandidate
from preceptor_trainer.config import RewriteConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.rewrite_ahead import RewriteAhead
from preceptor_trainer.thoughts import ThoughtFormat

PROVENANCE = Provenance(teacher="t", revision="r", rubric="x", rubric_hash="h", sampling=Sampling())


@pytest.fixture(scope="module")
def codec() -> Codec:
    tokenizer = Tokenizer(models.WordLevel({f"w{id}": id for id in range(40)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0"))


def windows(n: int) -> list[tuple[Window, Position]]:
    return [(Window(0, i, (1, i + 2), (3, i + 2)), Position(0, i + 1)) for i in range(n)]


class Teacher:
    """Answers as told, and notes how many questions were open at once. Each waits until `release` is set."""

    def __init__(self, answer: Callable[[RewriteRequest], RewriteResponse]) -> None:
        self.answer = answer
        self.open = self.most_open = self.asked = 0
        self.release = asyncio.Event()
        self.asked_at_least = asyncio.Condition()
        self.state = Health(status="ok")

    async def health(self, service: Literal["judge", "rewrite"]) -> Health:
        assert service == "rewrite"
        return self.state

    async def rewrite(self, request: RewriteRequest) -> RewriteResponse:
        self.asked += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        async with self.asked_at_least:
            self.asked_at_least.notify_all()
        await self.release.wait()
        self.open -= 1
        return self.answer(request)

    async def wait_for(self, asked: int) -> None:
        async with self.asked_at_least:
            await self.asked_at_least.wait_for(lambda: self.asked >= asked)


def rewritten(text: str | None, outcome: RewriteOutcome = RewriteOutcome.REWRITTEN) -> RewriteResponse:
    return RewriteResponse(outcome=outcome, rewrite=text, provenance=PROVENANCE, usage=Usage())


async def test_windows_keep_their_order_and_get_their_own_rewrite(codec: Codec) -> None:
    teacher = Teacher(lambda request: rewritten(request.suffix.split()[-1]))
    teacher.release.set()
    counts: Counter[str] = Counter()
    ahead = RewriteAhead(windows(20), codec, RewriteConfig(ahead=6), teacher, lambda what: counts.update([what]))
    seen = [prepared async for prepared in ahead.windows()]
    assert [prepared.window.document for prepared in seen] == list(range(20))
    assert [prepared.position.documents for prepared in seen] == list(range(1, 21))
    assert all(p.rewrite and p.rewrite.ids == (p.window.suffix[-1],) for p in seen)
    assert counts == {"rewrite_rewritten": 20}


async def test_it_works_ahead_but_no_further_than_told_and_no_wider(codec: Codec) -> None:
    teacher = Teacher(lambda _: rewritten("w1"))
    ahead = RewriteAhead(windows(50), codec, RewriteConfig(ahead=8, concurrency=3), teacher, lambda _: None)
    generator = ahead.windows()
    first = asyncio.create_task(anext(generator))
    await teacher.wait_for(3)
    assert not first.done()
    teacher.release.set()
    assert (await first).window.document == 0
    await teacher.wait_for(8)
    assert teacher.most_open == 3
    assert teacher.asked == 8
    await generator.aclose()


async def test_closing_cancels_what_is_being_asked(codec: Codec) -> None:
    teacher = Teacher(lambda _: rewritten("w1"))
    generator = RewriteAhead(windows(50), codec, RewriteConfig(ahead=4), teacher, lambda _: None).windows()
    first = asyncio.create_task(anext(generator))
    await teacher.wait_for(4)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await generator.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def refuse(_: RewriteRequest) -> RewriteResponse:
    return rewritten(None, RewriteOutcome.REFUSED)


def refuse_with(status: int) -> Callable[[RewriteRequest], RewriteResponse]:
    def answer(_: RewriteRequest) -> RewriteResponse:
        raise status_error(Problem(title="no", status=status), request_id="1")

    return answer


def vanish(_: RewriteRequest) -> RewriteResponse:
    raise ServiceUnreachableError("gone", request_id="1")


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (refuse, "rewrite_refused"),
        (lambda _: rewritten(None, RewriteOutcome.FAILED), "rewrite_failed"),
        (lambda _: rewritten(""), "rewrite_empty"),
        (vanish, "rewrite_unreachable"),
        (refuse_with(429), "rewrite_unreachable"),
        (refuse_with(500), "rewrite_unreachable"),
        (refuse_with(422), "rewrite_unfit"),
    ],
)
async def test_a_window_goes_on_without_a_rewrite_that_cannot_be_had(
    codec: Codec, answer: Callable[[RewriteRequest], RewriteResponse], counted: str
) -> None:
    teacher = Teacher(answer)
    teacher.release.set()
    counts: Counter[str] = Counter()
    config = RewriteConfig(patience_s=0.2)
    ahead = RewriteAhead(windows(3), codec, config, teacher, lambda what: counts.update([what]))
    assert [prepared.rewrite async for prepared in ahead.windows()] == [None] * 3
    assert counts == {counted: 3}
    assert ahead.waiting is None


async def test_a_service_that_is_away_is_waited_for_and_windows_keep_their_order(codec: Codec) -> None:
    teacher = Teacher(vanish)
    teacher.release.set()
    counts: Counter[str] = Counter()
    ahead = RewriteAhead(windows(9), codec, RewriteConfig(ahead=4), teacher, lambda what: counts.update([what]))

    async def collect() -> list[int]:
        return [prepared.window.document async for prepared in ahead.windows() if prepared.rewrite]

    collected = asyncio.create_task(collect())
    await teacher.wait_for(6)  # four windows, and some again
    assert ahead.waiting == "the rewrite service at http://127.0.0.1:8102 is away: gone (request 1)"
    teacher.answer = lambda request: rewritten(request.suffix.split()[-1])
    assert await collected == list(range(9))
    assert counts == {"rewrite_rewritten": 9}
    assert ahead.waiting is None


async def test_a_service_whose_teacher_is_away_is_waited_for_too(codec: Codec) -> None:
    teacher = Teacher(lambda _: rewritten(None, RewriteOutcome.FAILED))
    teacher.state = Health(status="unavailable", detail="the engine is lost")
    teacher.release.set()
    counts: Counter[str] = Counter()
    ahead = RewriteAhead(windows(9), codec, RewriteConfig(ahead=4), teacher, lambda what: counts.update([what]))

    async def collect() -> list[int]:
        return [prepared.window.document async for prepared in ahead.windows() if prepared.rewrite]

    collected = asyncio.create_task(collect())
    await teacher.wait_for(6)
    assert ahead.waiting == "the rewrite service at http://127.0.0.1:8102 is unavailable: the engine is lost"
    teacher.answer = lambda request: rewritten(request.suffix.split()[-1])
    assert await collected == list(range(9))
    assert counts == {"rewrite_rewritten": 9}


async def test_when_the_patience_is_over_each_window_is_tried_once_until_the_service_is_back(codec: Codec) -> None:
    teacher = Teacher(vanish)
    teacher.release.set()
    counts: Counter[str] = Counter()
    config = RewriteConfig(ahead=2, patience_s=0.2)
    generator = RewriteAhead(windows(40), codec, config, teacher, lambda what: counts.update([what])).windows()
    assert (await anext(generator)).rewrite is None
    asked, counted = teacher.asked, counts.total()
    for _ in range(20):
        assert (await anext(generator)).rewrite is None
    assert teacher.asked - asked <= counts.total() - counted + 2
    teacher.answer = lambda _: rewritten("w1")
    assert [prepared.rewrite is None async for prepared in generator][2:] == [False] * 17
    assert counts["rewrite_rewritten"] >= 17


async def test_waiting_ends_when_the_generator_is_closed(codec: Codec) -> None:
    teacher = Teacher(vanish)
    teacher.release.set()
    generator = RewriteAhead(windows(50), codec, RewriteConfig(ahead=4), teacher, lambda _: None).windows()
    first = asyncio.create_task(anext(generator))
    await teacher.wait_for(6)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await generator.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def garble(_: RewriteRequest) -> RewriteResponse:
    raise UnexpectedResponseError("the answer does not follow the contract", request_id="1")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refuse_with(401), r"does not take the key: 401 no .*; set rewrite\.api_key"),
        (refuse_with(403), r"set rewrite\.api_key"),
        (garble, r"does not answer as a rewrite service does: .*; set rewrite\.url"),
    ],
)
async def test_what_waiting_cannot_help_ends_the_run_at_once(
    codec: Codec, answer: Callable[[RewriteRequest], RewriteResponse], said: str
) -> None:
    teacher = Teacher(answer)
    teacher.release.set()
    with pytest.raises(TrainError, match=said):
        await anext(RewriteAhead(windows(9), codec, RewriteConfig(), teacher, lambda _: None).windows())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_text_that_is_no_request_goes_on_without_a_rewrite(codec: Codec) -> None:
    counts: Counter[str] = Counter()
    empty = [(Window(0, 0, (1,), ()), Position(0, 1))]
    ahead = RewriteAhead(empty, codec, RewriteConfig(), Teacher(refuse), lambda what: counts.update([what]))
    assert [prepared.rewrite async for prepared in ahead.windows()] == [None]
    assert counts == {"rewrite_unfit": 1}


async def test_windows_prepared_before_come_first_and_as_they_are(codec: Codec) -> None:
    teacher = Teacher(lambda _: rewritten("w1"))
    teacher.release.set()
    candidate = TokenCandidate("rewrite", Origin.REWRITE, (9,), "w9")
    before = [
        PreparedWindow(window, position, rewrite)
        for (window, position), rewrite in zip(windows(3), (candidate, None, candidate), strict=True)
    ]
    ahead = RewriteAhead(windows(9)[3:], codec, RewriteConfig(ahead=2), teacher, lambda _: None, first=before)
    seen = [prepared async for prepared in ahead.windows()]
    assert seen[:3] == before
    assert [prepared.window.document for prepared in seen[3:]] == list(range(3, 9))
    assert teacher.asked == 6


async def test_an_unchanged_suffix_keeps_its_tokens(codec: Codec) -> None:
    teacher = Teacher(lambda request: rewritten(request.suffix + "  ", RewriteOutcome.UNCHANGED))
    teacher.release.set()
    ahead = RewriteAhead(windows(1), codec, RewriteConfig(), teacher, lambda _: None)
    (prepared,) = [prepared async for prepared in ahead.windows()]
    assert prepared.rewrite is not None
    assert prepared.rewrite.ids == prepared.window.suffix


async def test_without_a_rewriter_the_windows_pass_through(codec: Codec) -> None:
    ahead = RewriteAhead(windows(5), codec, RewriteConfig(ahead=2), None, lambda _: None)
    assert [prepared.window.document async for prepared in ahead.windows()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "ids", "counted"),
    [
        (rewritten("w7 w8"), (10, 7, 8, 11, 3, 2), "rewrite_rewritten"),
        (rewritten("w7 w8 w9"), None, "rewrite_malformed"),
        (rewritten("w7 w11"), None, "rewrite_malformed"),
        (rewritten(" "), None, "rewrite_malformed"),
        (rewritten("w3 w2", RewriteOutcome.UNCHANGED), None, "rewrite_malformed"),
        (rewritten(None, RewriteOutcome.REFUSED), None, "rewrite_refused"),
    ],
    ids=["well formed", "too long", "with a delimiter", "empty", "the suffix itself", "refused"],
)
async def test_with_thoughts_a_rewrite_is_the_thought_and_the_suffix_as_it_is(
    codec: Codec, answer: RewriteResponse, ids: tuple[int, ...] | None, counted: str
) -> None:
    teacher = Teacher(lambda _: answer)
    teacher.release.set()
    counts: Counter[str] = Counter()
    thoughts = ThoughtFormat(open=10, close=11, limit=4, suffix=2)
    ahead = RewriteAhead(
        windows(1), codec, RewriteConfig(), teacher, lambda what: counts.update([what]), thoughts=thoughts
    )
    (prepared,) = [prepared async for prepared in ahead.windows()]
    assert (prepared.rewrite and prepared.rewrite.ids) == ids
    if prepared.rewrite:
        assert (prepared.rewrite.thought, prepared.rewrite.text) == (4, "w3 w2")
    assert counts == {counted: 1}
