"""The contract refuses what it does not know, and never lets a failed judgement carry a number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from preceptor_client.contract import (
    MAX_CANDIDATES,
    MAX_TEXT_CHARS,
    AxisReport,
    Candidate,
    Cohort,
    Health,
    JudgeRequest,
    JudgeResponse,
    JudgeTask,
    Message,
    Origin,
    Provenance,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Sampling,
    Status,
    Usage,
    Verdict,
    Votes,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,20}", fullmatch=True)
axes = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
counts = st.integers(0, 1000)
scores = st.floats(0, 1)

samplings = st.builds(Sampling, votes=st.integers(1, 64), temperature=st.floats(0.1, 2), top_p=st.floats(0.1, 1))
candidates = st.lists(
    st.builds(Candidate, id=names, origin=st.sampled_from(Origin), text=texts),
    min_size=1,
    max_size=5,
    unique_by=lambda candidate: candidate.id,
)
cohorts = st.builds(Cohort, id=names, prefix=texts, candidates=candidates.map(tuple), reference=st.none() | texts)
requests = st.builds(
    JudgeRequest,
    cohort=cohorts,
    axes=st.lists(axes, min_size=1, max_size=4, unique=True).map(tuple),
    sampling=st.none() | samplings,
    deadline_s=st.none() | st.floats(0.001, 3600),
)
votes = st.builds(Votes, counts=st.dictionaries(texts, counts, max_size=3), unreadable=counts, failed=counts)
verdicts = st.one_of(
    st.builds(Verdict, candidate_id=names, axis=axes, status=st.just(Status.OK), score=scores, votes=votes),
    st.builds(
        Verdict,
        candidate_id=names,
        axis=axes,
        status=st.sampled_from([Status.ABSTAINED, Status.FAILED]),
        votes=votes,
        reason=texts,
    ),
)
provenances = st.builds(Provenance, teacher=texts, revision=texts, rubric=texts, rubric_hash=texts, sampling=samplings)
usages = st.builds(Usage, calls=counts, prompt_tokens=counts, completion_tokens=counts)
reports = st.builds(AxisReport, provenance=provenances, usage=usages, position_consistency=st.none() | scores)
responses = st.builds(
    JudgeResponse,
    cohort_id=names,
    verdicts=st.lists(verdicts, max_size=4).map(tuple),
    axes=st.dictionaries(axes, reports, max_size=3),
    elapsed_s=st.floats(0, 1e6),
)
messages: st.SearchStrategy[BaseModel] = st.one_of(
    requests, responses, st.builds(JudgeTask, run=names, request=requests)
)


@given(messages)
def test_every_message_survives_the_wire_unchanged(message: BaseModel) -> None:
    assert type(message).model_validate_json(message.model_dump_json()) == message


@given(messages, st.data())
def test_an_unknown_field_anywhere_is_refused_by_name(message: BaseModel, data: st.DataObject) -> None:
    tree = json.loads(message.model_dump_json())
    data.draw(st.sampled_from(list(objects(type(message), tree))))["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        type(message).model_validate_json(json.dumps(tree))


def objects(model: type[BaseModel], tree: dict[str, Any]) -> list[dict[str, Any]]:
    """Some JSON objects within a message that stand for messages of their own."""
    found = [tree]
    if model is JudgeTask:
        found += objects(JudgeRequest, tree["request"])
    if model is JudgeRequest:
        found += [tree["cohort"], *tree["cohort"]["candidates"]]
    if model is JudgeResponse:
        found += [*tree["verdicts"], *tree["axes"].values()]
    return found


@given(status=st.sampled_from(Status), score=st.none() | scores)
def test_a_verdict_has_a_score_if_and_only_if_it_is_ok(status: Status, score: float | None) -> None:
    if (status is Status.OK) == (score is not None):
        assert Verdict(candidate_id="a", axis="safety", status=status, score=score).score == score
    else:
        with pytest.raises(ValidationError, match="if and only if"):
            Verdict(candidate_id="a", axis="safety", status=status, score=score)


@given(outcome=st.sampled_from(RewriteOutcome), rewrite=st.none() | texts)
def test_a_rewrite_has_a_text_if_and_only_if_there_is_one(outcome: RewriteOutcome, rewrite: str | None) -> None:
    provenance = Provenance(teacher="t", revision="r", rubric="r", rubric_hash="h", sampling=Sampling())
    fits = (outcome in (RewriteOutcome.REWRITTEN, RewriteOutcome.UNCHANGED)) == (rewrite is not None)
    if fits:
        response = RewriteResponse(outcome=outcome, rewrite=rewrite, provenance=provenance, usage=Usage())
        assert response.unchanged == (outcome is RewriteOutcome.UNCHANGED)
    else:
        with pytest.raises(ValidationError, match="if and only if"):
            RewriteResponse(outcome=outcome, rewrite=rewrite, provenance=provenance, usage=Usage())


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_outside_zero_to_one_is_refused(score: float) -> None:
    with pytest.raises(ValidationError):
        Verdict(candidate_id="a", axis="safety", status=Status.OK, score=score)


def cohort_of(*ids: str, text: str = "x") -> Cohort:
    return Cohort(id="c", prefix="p", candidates=tuple(Candidate(id=name, text=text) for name in ids))


def test_the_limits_on_size_hold() -> None:
    cohort_of(*(f"c{number}" for number in range(MAX_CANDIDATES)), text="x" * MAX_TEXT_CHARS)
    with pytest.raises(ValidationError, match=r"candidates\n.*at most 64"):
        cohort_of(*(f"c{number}" for number in range(MAX_CANDIDATES + 1)))
    with pytest.raises(ValidationError, match=r"text\n.*at most 65536"):
        cohort_of("a", text="x" * (MAX_TEXT_CHARS + 1))
    with pytest.raises(ValidationError, match="suffix"):
        RewriteRequest(prefix="p", suffix="")


def test_a_cohort_needs_candidates_with_ids_of_their_own() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        cohort_of()
    with pytest.raises(ValidationError, match="ids must be unique"):
        cohort_of("a", "a")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ü", "a\n", "x" * 129])
def test_an_id_that_could_break_a_key_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        cohort_of(name)


@pytest.mark.parametrize("named", [("Quality",), ("a-b",), ("safety", "safety"), ()])
def test_axes_are_plain_distinct_names(named: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="axes"):
        JudgeRequest(cohort=cohort_of("a"), axes=named)


def test_votes_without_a_temperature_are_refused() -> None:
    with pytest.raises(ValidationError, match="set a temperature"):
        Sampling(votes=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"votes": 0},
        {"votes": 65},
        {"temperature": 2.1},
        {"top_p": 0.0},
        {"votes": "2"},
        {"temperature": "1"},
        {"seed": 1.5},
    ],
)
def test_sampling_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        Sampling.model_validate(changes)


@given(usages, usages, usages)
def test_usage_adds_up(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@given(responses)
def test_a_responses_usage_is_the_sum_over_its_axes(response: JudgeResponse) -> None:
    assert response.usage.calls == sum(report.usage.calls for report in response.axes.values())


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        cohort_of("a").prefix = "other"  # type: ignore[misc]


def test_health_has_three_states() -> None:
    assert issubclass(Health, Message)
    with pytest.raises(ValidationError):
        Health.model_validate({"status": "fine"})
