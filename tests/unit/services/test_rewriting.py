from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from preceptor_client.contract import RewriteOutcome, RewriteRequest
from preceptor_client.rubrics import RubricError
from preceptor_services.batching import Batcher
from preceptor_services.engine import Engine, Generation, Prompt
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rewriting import Rewriter
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings, RewritingSettings

OpenEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
def open_rewriter(open_engine: OpenEngine, metrics: Metrics) -> Callable[..., Awaitable[Rewriter]]:
    async def open_one(server: object, rubrics: str = "nano", **settings: object) -> Rewriter:
        engine, book = await open_engine(server, retries=0), load_rubrics(rubrics)
        judge = Judge(engine, book, JudgingSettings(), metrics)
        return Rewriter(engine, book, RewritingSettings.model_validate(settings), metrics, judge)

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
    rewriter = await open_rewriter(faulty_server(answer=lambda prompt: "I cannot rewrite this text."))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s"))
    assert (response.outcome, response.rewrite) == (RewriteOutcome.REFUSED, None)
    assert "declined" in (response.reason or "")


def drawing(*samples: str, judge: Callable[[str], str]) -> Callable[[str], str]:
    """Answers rewrites with `samples` in turn, and questions of the judge with `judge`."""
    drawn = iter(samples)
    return lambda prompt: next(drawn) if prompt.startswith("<rewrite>") else judge(prompt)


async def test_of_several_samples_the_judge_chooses_the_best(
    open_rewriter: OpenRewriter, faulty_server: type, metrics: Metrics
) -> None:
    samples = ["a poor one", "a good one", "I cannot rewrite this text.", "a  poor one", "the old one"]
    rewriter = await open_rewriter(server := faulty_server(answer=drawing(*samples, judge=faulty_server().answer)))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix=" the old one", samples=5))
    assert (response.outcome, response.rewrite) == (RewriteOutcome.REWRITTEN, " a good one")
    assert (response.usable, response.score, response.reason) == (3, 1.0, None)
    assert response.provenance.sampling.votes == 5
    assert server.bodies[0]["n"] == 5
    assert server.bodies[0]["temperature"] > 0
    assert response.usage.calls == sum(len(body["prompt"]) for body in server.bodies)
    exposition = metrics.exposition().decode()
    assert 'preceptor_rewrite_samples_total{finding="usable"} 4.0' in exposition
    assert 'preceptor_rewrite_samples_total{finding="declined"} 1.0' in exposition


async def test_the_suffix_itself_is_one_of_the_samples(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    rewriter = await open_rewriter(
        faulty_server(answer=drawing("a poor one", "good as it is", judge=faulty_server().answer)), samples=2
    )
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="good  as it is"))
    assert (response.outcome, response.rewrite, response.score) == (RewriteOutcome.UNCHANGED, "good  as it is", 1.0)


async def test_samples_with_one_text_are_not_judged(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    def unasked(prompt: str) -> str:
        raise AssertionError(prompt)

    rewriter = await open_rewriter(faulty_server(answer=drawing("a b", "a  b", "a b\n", judge=unasked)))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s", samples=3))
    assert (response.rewrite, response.usable, response.score, response.reason) == ("a b", 1, None, None)


async def test_without_a_judgement_the_first_usable_sample_is_taken(
    open_rewriter: OpenRewriter, faulty_server: type
) -> None:
    samples = ["", "a b", "good one"]
    rewriter = await open_rewriter(faulty_server(answer=drawing(*samples, judge=lambda prompt: "no verdict")))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s", samples=3))
    assert (response.rewrite, response.usable, response.score) == ("a b", 2, None)
    assert response.reason == "not judged: no answer names a verdict"


async def test_if_no_sample_is_usable_every_reason_is_told(open_rewriter: OpenRewriter, faulty_server: type) -> None:
    rewriter = await open_rewriter(faulty_server(answer=drawing("", "I cannot help with that.", "", judge=copying)))
    response = await rewriter.rewrite(RewriteRequest(prefix="p", suffix="s", samples=3))
    assert (response.outcome, response.rewrite, response.usable) == (RewriteOutcome.REFUSED, None, 0)
    assert response.reason == "the teacher answered with nothing; the teacher declined: 'I cannot help with that.'"


async def test_axes_that_the_judge_does_not_have_are_told_at_the_start(
    open_rewriter: OpenRewriter, faulty_server: type
) -> None:
    with pytest.raises(RubricError, match=r"rewriting\.axes.*'elegance'"):
        await open_rewriter(faulty_server(), samples=2, axes=("elegance",))


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
        "{axis: safety, mode: pointwise, endpoint: completion, prompt_file: t.jinja, "
        "labels: {ok: 1, bad: 0}, parser: exact, max_tokens: 1}"
    )
    (tmp_path / "t.jinja").write_text("{{ candidate }}?")
    rubrics = load_rubrics(str(tmp_path))
    with pytest.raises(RubricError, match=r"rewrite\.yaml"):
        Rewriter(None, rubrics, RewritingSettings(), metrics)  # type: ignore[arg-type]
