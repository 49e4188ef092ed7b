from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import RewriteOutcome, RewriteRequest, Usage
from preceptor_services.batching import Batcher, shares
from preceptor_services.engine import Engine, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.rewriting import Rewriter, objection, same_text, with_margins_of, without_join
from preceptor_services.rubrics import RubricError, load_rubrics
from preceptor_services.settings import RewritingSettings

OpenEngine = Callable[..., Awaitable[Engine]]
REFUSALS = [
    "I cannot rewrite this text.",
    "I can't help with that.",
    "I’m sorry, but I can't assist with this request.",
    "Sorry, I am unable to continue this.",
    "As an AI language model, I do not write such things.",
    "I won't create content that demeans people.",
    "Unfortunately, I cannot comply.",
]
TALK = [
    "Here is the rewritten continuation: the cat sat.",
    "Here's a revised version:\n\nThe cat sat.",
    "Sure! Here you go: the cat sat.",
    "Certainly, I have repaired it.",
    "Rewritten continuation: the cat sat.",
    "**Rewrite:** the cat sat.",
    "The continuation is good, so I copied it.",
]
TEXTS = [
    "Here is where the river bends.",
    "I cannot remember her name, he said.",
    "Sure enough, it rained.",
    "Sorry to hear it, she replied.",
    "the suffix tree is a data structure",
    "As an airline pilot, he travelled a lot.",
    "This is not what they wanted.",
]


@pytest.mark.parametrize("answer", [*REFUSALS, *TALK, "", "  \n", "the cat\n[end 0a1b2c3d]"])
def test_refusals_and_talk_are_told_from_rewrites(answer: str) -> None:
    assert objection(answer, "and then the cat sat.", "0a1b2c3d")


@pytest.mark.parametrize("answer", TEXTS)
def test_prose_that_sounds_alike_is_a_rewrite(answer: str) -> None:
    assert objection(answer, "and then the cat sat.", "0a1b2c3d") is None


@pytest.mark.parametrize("answer", [*REFUSALS, *TALK])
def test_a_suffix_that_began_like_a_refusal_may_be_copied(answer: str) -> None:
    assert objection(answer, answer, "0a1b2c3d") is None


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("the old man and the sea was calm.", "was calm."),
        ("The Old man and the sea\nwas calm.", "was calm."),
        ("and the sea was calm.", "was calm."),
        ("was calm, the old man.", "was calm, the old man."),
        ("the old man and the sea the sea was calm.", "the sea was calm."),
        ("the old man and the sea", ""),
    ],
)
def test_repeated_words_of_the_join_are_taken_off(answer: str, rest: str) -> None:
    assert without_join(answer, "the old man and the sea") == rest


@given(st.text(), st.text())
def test_without_a_join_nothing_is_taken_off(answer: str, original: str) -> None:
    assert without_join(answer, "") == answer
    assert same_text(with_margins_of(original, answer), answer)


def test_a_rewrite_keeps_the_margins_of_the_suffix() -> None:
    assert with_margins_of("\n\n Old text. ", "New text.\n") == "\n\n New text. "
    assert with_margins_of("old", " new") == "new"


@given(st.integers(0, 1000), st.integers(0, 10**6), st.integers(1, 70))
def test_shares_of_a_batch_sum_to_what_it_cost(calls: int, tokens: int, count: int) -> None:
    usage = Usage(calls=calls, prompt_tokens=tokens, completion_tokens=tokens // 3)
    parts = shares(usage, count)
    assert len(parts) == count
    assert sum(parts, Usage()) == usage
    assert max(p.prompt_tokens for p in parts) - min(p.prompt_tokens for p in parts) <= 1


@pytest.fixture
def open_rewriter(open_engine: OpenEngine, metrics: Metrics) -> Callable[..., Awaitable[Rewriter]]:
    async def open_one(server: object, rubrics: str = "nano", **settings: object) -> Rewriter:
        engine = await open_engine(server, retries=0)
        return Rewriter(engine, load_rubrics(rubrics), RewritingSettings.model_validate(settings), metrics)

    return open_one


OpenRewriter = Callable[..., Awaitable[Rewriter]]


def copying(prompt: str) -> str:
    return prompt.split(" <a> ")[1].removesuffix(" <answer>")


async def test_a_copied_suffix_is_unchanged_to_the_letter(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    rewriter = await open_rewriter(faulty_server(answer=copying))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="  two  spaces and <s> kept "))
    assert response.outcome is RewriteOutcome.UNCHANGED
    assert response.rewrite == "  two  spaces and <s> kept "


async def test_a_repaired_suffix_joins_its_prefix_as_the_old_one_did(
    open_rewriter: OpenRewriter, faulty_server: type
) -> None:
    rewriter = await open_rewriter(
        faulty_server(answer=lambda prompt: "the old harbour of brest lay ‹s› a ship."), "instruct"
    )
    response = await rewriter.rewrite(
        RewriteRequest(prefix="It began in the old harbour of Brest", suffix=" lay <s> ship ship.")
    )
    assert response.outcome is RewriteOutcome.REWRITTEN
    assert response.rewrite == " lay <s> a ship."
    assert response.provenance.rubric == "instruct/rewrite"


async def test_a_refusal_brings_no_text(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    rewriter = await open_rewriter(faulty_server(answer=lambda prompt: REFUSALS[0]))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s"))
    assert (response.outcome, response.rewrite) == (RewriteOutcome.REFUSED, None)
    assert "declined" in (response.reason or "")


async def test_a_failed_call_brings_no_text(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    rewriter = await open_rewriter(faulty_server(faults=[httpx.Response(500, text="gone")]))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s"))
    assert (response.outcome, response.rewrite) == (RewriteOutcome.FAILED, None)
    assert "gone" in (response.reason or "")


async def test_concurrent_rewrites_share_requests_and_get_their_own_answers(
    open_rewriter: OpenRewriter, faulty_server: type
) -> None:
    rewriter = await open_rewriter(server := faulty_server(answer=copying), max_prompts_per_call=16)
    suffixes = [f"suffix {i}" for i in range(40)]
    responses = await asyncio.gather(*(rewriter.rewrite(RewriteRequest(prefix="p", suffix=s)) for s in suffixes))
    assert [response.rewrite for response in responses] == suffixes
    assert [len(body["prompt"]) for body in server.bodies] == [16, 16, 8]
    assert sum(response.usage.calls for response in responses) == 40


async def test_while_the_engine_is_busy_questions_gather(open_engine: OpenEngine, faulty_server: type) -> None:
    engine = await open_engine(server := faulty_server(answer=copying))
    server.hold = asyncio.Event()
    batcher = Batcher(engine, max_prompts=8)
    generation = Generation("completion", max_tokens=4)
    deadline = asyncio.get_running_loop().time() + 20

    def ask(index: int) -> asyncio.Task[object]:
        return asyncio.create_task(batcher.ask(Prompt(f"p <a> {index} <answer>"), generation, deadline=deadline))

    first = []
    for index in range(2):
        first.append(ask(index))
        await server.arrived(index + 1)
    later = [ask(index) for index in range(2, 7)]
    await asyncio.sleep(0.02)
    assert [len(body["prompt"]) for body in server.bodies] == [1, 1]
    server.hold.set()
    await asyncio.gather(*first, *later)
    assert [len(body["prompt"]) for body in server.bodies] == [1, 1, 5]


async def test_a_rewrite_that_is_given_up_takes_no_other_with_it(
    open_rewriter: OpenRewriter, faulty_server: type
) -> None:
    rewriter = await open_rewriter(server := faulty_server(answer=copying))
    server.hold = asyncio.Event()
    impatient = asyncio.create_task(rewriter.rewrite(RewriteRequest(prefix="p", suffix="a", deadline_s=0.05)))
    patient = asyncio.create_task(rewriter.rewrite(RewriteRequest(prefix="p", suffix="b")))
    cancelled = asyncio.create_task(rewriter.rewrite(RewriteRequest(prefix="p", suffix="c")))
    assert (await impatient).outcome is RewriteOutcome.FAILED
    cancelled.cancel()
    server.hold.set()
    assert (await patient).rewrite == "b"


def test_a_set_that_cannot_rewrite_says_so(tmp_path: Path, metrics: Metrics) -> None:
    (tmp_path / "set.yaml").write_text("description: only safety\n")
    (tmp_path / "safety.yaml").write_text(
        "{axis: safety, mode: pointwise, endpoint: completion, template: t.jinja, "
        "labels: {ok: 1, bad: 0}, parser: exact, max_tokens: 1}"
    )
    (tmp_path / "t.jinja").write_text("{{ candidate }}?")
    rubrics = load_rubrics(str(tmp_path))
    with pytest.raises(RubricError, match=r"no rewrite\.yaml"):
        Rewriter(None, rubrics, RewritingSettings(), metrics)  # type: ignore[arg-type]
