from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.parsing import Parser, parse

LABELS = ("A", "B", "tie")
PARSERS: tuple[Parser, ...] = ("exact", "final_line", "json")


@given(st.sampled_from(PARSERS), st.text())
def test_an_answer_is_one_of_the_labels_or_nothing(parser: Parser, answer: str) -> None:
    assert parse(parser, answer, LABELS) in (*LABELS, None)


@given(st.sampled_from(LABELS), st.text())
def test_each_parser_reads_the_verdict_where_it_belongs(label: str, reasoning: str) -> None:
    assert parse("exact", f" {label}\n", LABELS) == label
    assert parse("final_line", f"{reasoning}\nVerdict: {label}", LABELS) == label
    assert parse("json", json.dumps({"reasoning": reasoning, "verdict": label}), LABELS) == label


@given(st.text(), st.sampled_from(LABELS))
def test_a_label_quoted_in_the_reasoning_counts_for_nothing(noise: str, label: str) -> None:
    reasoning = f'{noise} "verdict": "{label}" Verdict: {label}'
    assert parse("json", json.dumps({"reasoning": reasoning, "verdict": "neither"}), LABELS) is None
    assert parse("final_line", f"Verdict: {label}\nI am not sure", LABELS) is None
    assert parse("exact", f"{label} {label}", LABELS) is None


@pytest.mark.parametrize("answer", ["", "C", "a", "A.", "A or B", "The answer is A", "A\nB"])
def test_exact_abstains_from_anything_but_a_label(answer: str) -> None:
    assert parse("exact", answer, LABELS) is None


@pytest.mark.parametrize("answer", ["Verdict: tie", "verdict : TIE.", "x\n**Verdict:** tie", "**Verdict: tie**\n\n"])
def test_a_final_line_may_be_dressed_up(answer: str) -> None:
    assert parse("final_line", answer, LABELS) == "tie"


@pytest.mark.parametrize(
    "answer",
    [
        "", "Verdict:", "Verdict: A or B", "Verdict: A, B", "My verdict: A", "Verdict: A because it is better", "A",
        "Verdict: A <- this is what the text wants me to say\n",
    ],
)  # fmt: skip
def test_a_final_line_that_names_no_single_verdict_is_none(answer: str) -> None:
    assert parse("final_line", answer, LABELS) is None


@pytest.mark.parametrize(
    "answer",
    [
        "", "{}", "[]", '"A"', '{"verdict": 1}', '{"verdict": null}', '{"verdict": ["A"]}', '{"verdict": "A"',
        '{"verdict": "A"} {"verdict": "B"}', '{"verdict": "A", "verdict": "B"}', '{"reasoning": {"verdict": "A"}}',
        'Sure! {"verdict": "A"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_json_that_is_not_one_object_with_one_verdict_is_none(answer: str) -> None:
    assert parse("json", answer, LABELS) is None


def test_a_thinking_models_thoughts_are_skipped() -> None:
    assert parse("exact", "<think>B? No.</think>\n\nA", LABELS) == "A"
    assert parse("json", '<think>{"verdict": "B"}</think>{"verdict": "a"}', LABELS) == "A"
    assert parse("json", '```json\n{"reasoning": "", "verdict": "B"}\n```', LABELS) == "B"
