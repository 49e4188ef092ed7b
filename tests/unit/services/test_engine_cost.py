from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import Usage
from preceptor_services.engine import Answer, Prompt
from preceptor_services.engine.cost import parts_of, shares

Texts = st.lists(st.text(max_size=40), min_size=1, max_size=6)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_shares_sum_to_the_whole_and_follow_the_weights(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == total
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - total * weight / sum(weights)) <= 1


@given(st.lists(st.tuples(Texts, Texts), min_size=1, max_size=8), st.integers(0, 10**6), st.integers(1, 512))
def test_parts_sum_to_what_the_request_cost(calls: list[tuple[list[str], list[str]]], tokens: int, most: int) -> None:
    asked = [([Prompt(text) for text in read], [Answer((text,)) for text in written]) for read, written in calls]
    cost = Usage(calls=sum(len(read) for read, _ in calls), prompt_tokens=tokens, completion_tokens=tokens // 3)
    parts = parts_of(cost, asked, most)
    assert sum(parts, Usage()) == cost
    assert [part.calls for part in parts] == [len(read) for read, _ in calls]


@given(st.lists(st.tuples(Texts, st.integers(1, 3)), min_size=1, max_size=8))
def test_answers_of_one_token_cost_one_each_whatever_was_read(calls: list[tuple[list[str], int]]) -> None:
    asked = [([Prompt(text) for text in read], [Answer(("A",) * n)] * len(read)) for read, n in calls]
    answers = [len(read) * n for read, n in calls]
    cost = Usage(calls=sum(len(read) for read, _ in calls), prompt_tokens=1000, completion_tokens=sum(answers))
    assert [part.completion_tokens for part in parts_of(cost, asked, 1)] == answers


def test_an_answer_that_failed_wrote_nothing() -> None:
    cost = Usage(calls=2, prompt_tokens=20, completion_tokens=9)
    failed, well = parts_of(cost, [([Prompt("a")], [Answer(error="x")]), ([Prompt("b")], [Answer(("words",))])], 64)
    assert (failed.completion_tokens, well.completion_tokens) == (0, 9)
