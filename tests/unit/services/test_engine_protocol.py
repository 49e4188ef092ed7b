from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import Constraint
from preceptor_services.engine import EngineError, Generation, Prompt
from preceptor_services.engine.protocol import answers_of, body_of, failure_of, split_thought
from preceptor_services.settings import Reasoning

CHAT = Generation("chat", max_tokens=64, labels=("A", "B"))
plain = st.text(alphabet=st.characters(exclude_characters="<"))


def chat_reply(finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def one_answer(reply: dict[str, Any], reasoning: Reasoning = "none") -> tuple[str, str | None]:
    ((answer,), _) = answers_of(reply, "chat", 1, 1, reasoning=reasoning)
    ((text,), (thought,)) = answer.texts, answer.reasoning
    return text, thought


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_thought_that_the_server_took_apart_is_kept(field: str) -> None:
    assert one_answer(chat_reply(content="\n\nVerdict: A", **{field: "hm"})) == ("\n\nVerdict: A", "hm")


def test_a_thought_without_an_answer_is_an_empty_text_not_an_error() -> None:
    assert one_answer(chat_reply("length", content=None, reasoning="on and on")) == ("", "on and on")


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        ("<think>\nhm\n</think>\n\nVerdict: A", "\n\nVerdict: A", "hm"),
        ("hm</think>Verdict: A", "Verdict: A", "hm"),  # the template opened the thought
        ("<think></think>Verdict: A", "Verdict: A", ""),
        ("<think>Verdict: A", "", "Verdict: A"),
        ("<think>a</think> b </think>Verdict: B", "Verdict: B", "a</think> b"),
        ("Verdict: A", "Verdict: A", None),
    ],
)
def test_a_thought_inside_the_answer_is_split_off(content: str, text: str, thought: str | None) -> None:
    assert one_answer(chat_reply(content=content)) == (text, thought)


@pytest.mark.parametrize(
    ("reasoning", "finish_reason", "text"),
    [("inline", "length", ""), ("inline", "stop", "Verdict: A"), ("none", "length", "Verdict: A")],
)
def test_an_answer_that_broke_off_is_all_thought_if_the_teacher_thinks_inline(
    reasoning: Reasoning, finish_reason: str, text: str
) -> None:
    assert one_answer(chat_reply(finish_reason, content="Verdict: A"), reasoning)[0] == text


@given(thought=st.text(), answer=plain)
def test_nothing_before_the_last_end_of_thought_is_ever_an_answer(thought: str, answer: str) -> None:
    assert split_thought(f"{thought}</think>{answer}")[1] == answer


@pytest.mark.parametrize(
    ("reasoning", "constraint", "bound"),
    [
        ("none", "json", True),
        ("parsed", "json", True),
        ("parsed", "choice", True),
        ("parsed", "tokens", False),
        ("inline", "json", False),
        ("inline", "choice", False),
        ("harmony", "json", False),
    ],
)
def test_a_constraint_never_binds_the_thought(reasoning: Reasoning, constraint: Constraint, bound: bool) -> None:
    body = body_of(
        [Prompt("?")],
        CHAT,
        model="m",
        constraint=constraint,
        label_tokens={"A": 1, "B": 2},
        reasoning=reasoning,
        thought_tokens=1000,
    )
    assert bool(body.keys() & {"allowed_token_ids", "structured_outputs", "response_format"}) is bound
    assert body["max_tokens"] == (64 if reasoning == "none" else 1064)
    assert body.get("thinking_token_budget") == (1000 if reasoning == "parsed" else None)


def test_a_completion_has_no_thought_to_make_room_for() -> None:
    generation = Generation("completion", max_tokens=1, labels=("A", "B"))
    body = body_of(
        [Prompt("?")],
        generation,
        model="m",
        constraint="tokens",
        label_tokens={"A": 1, "B": 2},
        reasoning="inline",
        thought_tokens=1000,
    )
    assert (body["max_tokens"], body["allowed_token_ids"]) == (1, [1, 2])


@given(st.integers(1, 4), st.integers(1, 3), st.randoms())
def test_choices_belong_to_their_prompts_in_whatever_order_they_come(prompts: int, n: int, dice: Any) -> None:
    choices = [{"index": index, "text": f"{index // n}.{index % n}"} for index in range(prompts * n)]
    dice.shuffle(choices)
    answers, cost = answers_of({"choices": choices, "usage": {"prompt_tokens": 7}}, "completion", prompts, n)
    assert [answer.texts for answer in answers] == [tuple(f"{p}.{i}" for i in range(n)) for p in range(prompts)]
    assert all(len(answer.reasoning) == n for answer in answers)
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (prompts, 7, 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "usage", "index", "text", "message", "content"]), inner, max_size=4
        )
    ),
)


@given(json_values)
def test_a_reply_that_makes_no_sense_is_an_error_and_never_an_answer(reply: Any) -> None:
    with pytest.raises(EngineError) as raised:
        answers_of(reply, "chat", 2, 1)
    assert raised.value.kind == "broken"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"error": {"message": "no chat template", "code": 400}}', "no chat template"),
        ('{"error": "no"}', '{"error": "no"}'),
        ("Bad Request", "Bad Request"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(text: str, told: str) -> None:
    assert str(failure_of(400, text, "", "/v1/completions")) == f"/v1/completions answered 400: {told}"
