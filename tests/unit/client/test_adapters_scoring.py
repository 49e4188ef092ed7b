"""From texts to scores: grouping, weights, what has no score and why."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client import PreceptorClient, Sampling
from preceptor_client.adapters import Group, Scored, Scorer
from preceptor_client.adapters.scoring import grouped, plain_text
from preceptor_client.contract import MAX_TEXT_CHARS, AxisGate, Composition, JudgeResponse, Status, Verdict, Votes
from preceptor_client.errors import AuthenticationError, InvalidRequestError
from preceptor_client.testing import FakePreceptor, Refusal, Unreachable, score_by_hash


def by_length(axis: str, prefix: str, text: str) -> float | Status:
    """Quality is a tenth per character, safety one unless it says `bad`."""
    if text == "?":
        return Status.ABSTAINED
    if text == "!":
        return Status.FAILED
    return min(1.0, len(text) / 10) if axis == "quality" else float("bad" not in text)


def scorer_of(fake: FakePreceptor, *args: object, **options: object) -> Scorer:
    return Scorer(*args, client=fake.client(), async_client=fake.async_client(), **options)  # type: ignore[arg-type]


def test_a_score_is_the_weighted_mean_over_the_axes() -> None:
    scorer = scorer_of(FakePreceptor(by_length), {"quality": 1, "safety": 3})
    good, bad = scorer.score_texts(["the sky is"] * 2, ["blueblueblue", "bad"], [None, None])
    assert good == Scored(1.0, {"quality": 1.0, "safety": 1.0})
    assert bad.score == pytest.approx((0.3 + 3 * 0.0) / 4)


async def test_both_ways_of_asking_find_the_same() -> None:
    scorer = scorer_of(FakePreceptor(), ("quality", "safety"))
    groups = [Group(f"prompt {i}", tuple(f"text {i} {k}" for k in range(4))) for i in range(8)]
    assert await scorer.score_async(groups) == await asyncio.to_thread(scorer.score, groups)


def test_texts_of_one_prompt_are_one_cohort() -> None:
    fake = FakePreceptor()
    scorer_of(fake).score_texts(["a", "b", "a", "a"], ["1", "2", "3", "4"], [None, None, None, "ref"])
    asked = {(r.cohort.prefix, r.cohort.reference, tuple(c.text for c in r.cohort.candidates)) for r in fake.judged}
    assert asked == {("a", None, ("1", "3")), ("b", None, ("2",)), ("a", "ref", ("4",))}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3), st.sampled_from([None, "r"])), max_size=12))
def test_grouping_loses_and_mixes_nothing(rows: list[tuple[str, str, str | None]]) -> None:
    prompts, texts, references = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    groups, places = grouped(prompts, texts, references)
    found = [(groups[g].prompt, groups[g].texts[place], groups[g].reference) for g, place in places]
    assert found == rows
    assert sum(len(group.texts) for group in groups) == len(rows)
    assert len(groups) == len({(prompt, reference) for prompt, _, reference in rows})


def test_what_was_not_judged_has_no_score_and_a_reason() -> None:
    scorer = scorer_of(FakePreceptor(by_length), ("quality", "safety"))
    fine, abstained, failed = scorer.score([Group("p", ("text", "?", "!"))])[0]
    assert fine.score is not None
    assert abstained.score is failed.score is None
    assert "quality abstained: no answer names a verdict" in str(abstained.reason)
    assert "quality failed" in str(failed.reason)


def test_failed_verdicts_are_asked_for_again_and_abstained_ones_are_not() -> None:
    calls: list[str] = []

    def recovers(axis: str, prefix: str, text: str) -> float | Status:
        calls.append(text)
        return Status.FAILED if text == "late" and calls.count("late") == 1 else by_length(axis, prefix, text)

    scorer = scorer_of(FakePreceptor(recovers))
    found = scorer.score([Group("p", ("late",)), Group("p", ("?",))])
    assert [each[0].score is None for each in found] == [False, True]
    assert sorted(calls) == ["?", "late", "late"]


def test_a_service_that_stays_away_leaves_its_group_without_scores() -> None:
    fake = FakePreceptor(by_length)
    fake.script(Unreachable())
    with fake.client(retries=0) as client:
        found = Scorer(client=client).score([Group("p", ("one", "two"))])[0]
        assert [each.score for each in found] == [None, None]
        assert "cannot be reached" in str(found[0].reason)
        assert Scorer(client=client).score([Group("p", ("one",))])[0][0].score == 0.3


def test_what_asking_again_cannot_mend_is_raised() -> None:
    fake = FakePreceptor()
    fake.script(Refusal(401))
    with pytest.raises(AuthenticationError):
        scorer_of(fake).score([Group("p", ("one",))])
    with pytest.raises(InvalidRequestError, match="no rubric for 'wit'"):
        scorer_of(fake, "wit").score([Group("p", ("one",))])


def test_what_is_raised_can_cross_to_another_process() -> None:
    fake = FakePreceptor()
    fake.script(Refusal(401))
    with pytest.raises(AuthenticationError) as raised:
        scorer_of(fake).score([Group("p", ("one",))])
    there = pickle.loads(pickle.dumps(raised.value))
    assert (type(there), str(there), there.problem) == (AuthenticationError, str(raised.value), raised.value.problem)


def test_texts_that_are_too_long_stay_out_and_the_others_are_judged() -> None:
    fake = FakePreceptor(by_length)
    long = "x" * (MAX_TEXT_CHARS + 1)
    found = scorer_of(fake).score([Group("p", (long, "fine")), Group(long, ("a", "b"))])
    assert [[each.score for each in group] for group in found] == [[None, 0.4], [None, None]]
    assert "longer than" in str(found[0][0].reason)
    assert len(fake.judged) == 1


def test_too_many_texts_for_one_prompt_say_how_many_fit() -> None:
    with pytest.raises(ValueError, match="65 texts for one prompt: a cohort holds at most 64"):
        scorer_of(FakePreceptor()).score([Group("p", tuple(map(str, range(65))))])


def test_the_reference_may_be_a_rival() -> None:
    fake = FakePreceptor(by_length)
    found = scorer_of(fake, against_reference=True).score([Group("p", ("text",), "the reference")])[0]
    assert [each.score for each in found] == [0.4]
    (request,) = fake.judged
    assert [(c.id, c.origin) for c in request.cohort.candidates] == [("c0", "rollout"), ("reference", "original")]
    assert request.cohort.reference == "the reference"


def test_a_comparison_with_nothing_is_not_a_score() -> None:
    """A pairwise axis gives a text that is alone half a point, whatever it says."""

    def half(request: httpx.Request) -> httpx.Response:
        cohort_id = request.read().decode().split('"id":"')[1].split('"')[0]
        votes = Votes(counts={"won": 0, "lost": 0, "tied": 0})
        verdict = Verdict(candidate_id="c0", axis="quality", status=Status.OK, score=0.5, votes=votes)
        response = JudgeResponse(cohort_id=cohort_id, verdicts=(verdict,), axes={}, elapsed_s=0.0)
        return httpx.Response(200, content=response.model_dump_json())

    with PreceptorClient(transport=httpx.MockTransport(half)) as client:
        (found,) = Scorer(client=client).score([Group("p", ("alone",))])[0]
    assert found.score is None
    assert "quality: it compares texts, and there is one" in str(found.reason)


def test_a_composition_takes_the_place_of_weights() -> None:
    gate = AxisGate(axis="quality", minimum=0.5, guards=("safety",))
    composition = Composition(weights={"quality": 1, "safety": 1}, gates=(gate,))
    scorer = scorer_of(FakePreceptor(by_length), composition=composition)
    short, long, unjudged = scorer.score([Group("p", ("ab", "abcdefgh", "?"))])[0]
    assert short.score == pytest.approx(0.1)
    assert long.score == pytest.approx(0.9)
    assert unjudged.score is None
    assert "quality" in str(unjudged.reason)


def test_options_reach_the_service() -> None:
    fake, sampling = FakePreceptor(), Sampling(votes=3, temperature=1.0)
    scorer = scorer_of(fake, "quality", rubrics={"quality": "mine/quality"}, sampling=sampling, deadline_s=7.0)
    scorer.score([Group("p", ("one",))])
    (request,) = fake.judged
    assert (request.rubrics, request.sampling, request.deadline_s) == ({"quality": "mine/quality"}, sampling, 7.0)


def test_axes_and_attempts_are_checked() -> None:
    for axes in ((), {"quality": 0.0}):
        with pytest.raises(ValueError, match="axes: give at least one axis"):
            Scorer(axes)
    with pytest.raises(ValueError, match="attempts"):
        Scorer(attempts=0)


def test_a_scorer_can_be_pickled() -> None:
    scorer = scorer_of(FakePreceptor(), {"quality": 2.0})
    scorer.score([Group("p", ("one",))])
    assert pickle.loads(pickle.dumps(scorer)).axes == ("quality",)


def test_importing_the_adapters_and_the_fake_loads_none_of_the_tools() -> None:
    modules = [f"preceptor_client.adapters.{name}" for name in ("trl", "lm_eval", "verl", "openrlhf", "slime")]
    absent = {"torch", "trl", "lm_eval", "transformers", "fastapi", "redis"}
    code = f"import sys, {', '.join(modules)}, preceptor_client.testing; print(*({absent!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_chat_messages_become_text() -> None:
    assert plain_text("as it is") == "as it is"
    assert plain_text([{"role": "user", "content": "hello"}]) == "hello"
    blocks = [{"type": "text", "text": "what is"}, {"type": "image"}]
    messages = [{"role": "user", "content": blocks}, {"role": "assistant", "content": None}]
    assert plain_text(messages) == "user: what is\n[image]\n\nassistant: "


def test_the_default_score_is_in_range_and_depends_on_everything() -> None:
    scores = {score_by_hash(axis, prefix, text) for axis in "ab" for prefix in "ab" for text in "ab"}
    assert len(scores) == 8
    assert all(0 <= score < 1 for score in scores)
