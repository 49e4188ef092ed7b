from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from preceptor_client.contract import Provenance, RewriteOutcome, RewriteRequest, RewriteResponse, Sampling, Usage
from preceptor_client.errors import ServiceUnreachableError
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import RewriteConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.rewrite_ahead import RewriteAhead

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


def vanish(_: RewriteRequest) -> RewriteResponse:
    raise ServiceUnreachableError("gone", request_id="1")


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (refuse, "rewrite_refused"),
        (lambda _: rewritten(None, RewriteOutcome.FAILED), "rewrite_failed"),
        (lambda _: rewritten(""), "rewrite_empty"),
        (vanish, "rewrite_unreachable"),
    ],
)
async def test_a_window_goes_on_without_a_rewrite_that_cannot_be_had(
    codec: Codec, answer: Callable[[RewriteRequest], RewriteResponse], counted: str
) -> None:
    teacher = Teacher(answer)
    teacher.release.set()
    counts: Counter[str] = Counter()
    ahead = RewriteAhead(windows(3), codec, RewriteConfig(), teacher, lambda what: counts.update([what]))
    assert [prepared.rewrite async for prepared in ahead.windows()] == [None] * 3
    assert counts == {counted: 3}


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
