from __future__ import annotations

import json
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import Parser
from preceptor_services.parsing import MAX_RATIONALE_CHARS, OrderReading, Reading, Rung, read, read_order

LABELS = ("A", "B", "tie")
PARSERS: tuple[Parser, ...] = ("exact", "final_line", "json")
ABSTAINED = Reading(None, Rung.ABSTAIN)
NO_ORDER = OrderReading(None, Rung.ABSTAIN)

parsers = st.sampled_from(PARSERS)
labels = st.sampled_from(LABELS)
wordy = st.lists(
    st.one_of(
        st.sampled_from(["verdict", "Answer", "is", ":", " ", "\n", '"', "'", "{", "}", "```", "**", "</think>", ">"]),
        labels,
        st.text(max_size=5),
    ),
    max_size=30,
).map("".join)


def strictly(parser: Parser, answer: str, labels: Collection[str] = LABELS) -> str | None:
    """What the strict rung alone reads."""
    reading = read(parser, answer, labels)
    return reading.label if reading.rung is Rung.STRICT else None


@given(parsers, st.one_of(st.text(), wordy), st.booleans(), st.booleans())
def test_an_answer_is_one_of_the_labels_or_nothing(parser: Parser, answer: str, bound: bool, cut_off: bool) -> None:
    reading = read(parser, answer, LABELS, constrained=bound, cut_off=cut_off)
    assert reading.label in (*LABELS, None)
    assert (reading.label is None) == (reading.rung is Rung.ABSTAIN)
    assert len(reading.rationale or "") <= MAX_RATIONALE_CHARS
    assert (reading.rung is Rung.CONSTRAINED) <= bound


@given(parsers, st.one_of(st.text(), wordy))
def test_bound_decoding_is_read_strictly_and_from_nothing_else(parser: Parser, answer: str) -> None:
    assert read(parser, answer, LABELS, constrained=True).label == strictly(parser, answer)


@given(labels, st.text())
def test_each_parser_reads_the_verdict_where_it_belongs(label: str, reasoning: str) -> None:
    reasoning = reasoning.replace("</think>", "").replace("<think>", "")
    assert strictly("exact", f" {label}\n") == label
    assert strictly("final_line", f"{reasoning}\nVerdict: {label}") == label
    assert strictly("json", json.dumps({"reasoning": reasoning, "verdict": label})) == label


@given(st.text(), labels)
def test_a_label_quoted_in_the_reasoning_counts_for_nothing(noise: str, label: str) -> None:
    reasoning = f'{noise} "verdict": "{label}" Verdict: {label}'
    assert read("json", json.dumps({"reasoning": reasoning, "verdict": "neither"}), LABELS) == ABSTAINED
    assert read("final_line", f"Verdict: {label}\nI am not sure", LABELS) == ABSTAINED
    assert read("exact", f"{label} {label}", LABELS) == ABSTAINED


@pytest.mark.parametrize("answer", ["", "C", "a", "A.", "A or B", "The answer is A", "A\nB"])
def test_exact_takes_nothing_but_a_label_strictly(answer: str) -> None:
    assert strictly("exact", answer) is None


@pytest.mark.parametrize("answer", ["Verdict: tie", "verdict : TIE.", "x\n**Verdict:** tie", "**Verdict: tie**\n\n"])
def test_a_final_line_may_be_dressed_up(answer: str) -> None:
    assert strictly("final_line", answer) == "tie"


@pytest.mark.parametrize(
    "answer",
    [
        "", "Verdict:", "Verdict: A or B", "Verdict: A, B", "Your verdict: A", "Verdict: A because it is better",
        "Verdict: A <- this is what the text wants me to say\n", "Verdict: A\n> Verdict: A", 'Verdict: "A',
        "Verdict: C", "verdict:" + " " * 50_000 + "*x", "Verdict: A" + " " * 50_000 + "*x",
    ],
)  # fmt: skip
def test_a_final_line_that_names_no_single_verdict_is_none(answer: str) -> None:
    assert read("final_line", answer, LABELS) == ABSTAINED


@pytest.mark.parametrize(
    "answer",
    [
        "", "{}", "[]", '{"verdict": 1}', '{"verdict": null}', '{"verdict": ["A"}', '{"verdict": "A"',
        '{"verdict": "A"} {"verdict": "B"}', '{"verdict": "A", "verdict": "B"}', '{"reasoning": {"verdict": "A"}}',
        'Sure! {"verdict": "A"}', "[" * 100_000, "{" * 100_000, "```json" + "\n" * 50_000, "\n" * 50_000 + "x}",
        '{"verdict": "A"' + " " * 50_000 + "x}", '{"verdict": "A"} is what it says', "verdict " * 10_000,
    ],
)  # fmt: skip
def test_json_that_is_not_one_object_with_one_verdict_is_none(answer: str) -> None:
    assert read("json", answer, LABELS) == ABSTAINED


@pytest.mark.parametrize(
    ("parser", "answer"),
    [
        ("json", 'Here it is:\n\n```json\n{"reasoning": "x", "verdict": "B"}\n```'),
        ("json", '{"reasoning": "x", "verdict": "B",}'),
        ("json", "{'reasoning': 'x', 'verdict': 'B'}"),
        ("json", '{"reasoning": "a "quoted" word", "verdict": "B"}'),
        ("json", 'A is shorter.\n{"verdict": "b"}'),
        ("json", '{"verdict": B}'),
        ("json", "A is shorter.\n\nVerdict: B"),
        ("exact", "b"),
        ("exact", '"B"'),
        ("exact", "**B**."),
        ("exact", "Answer: B"),
        ("final_line", "A is shorter.\nAnswer: B"),
        ("final_line", "A is shorter.\nThe verdict is B."),
        ("final_line", "**My final answer is (B).**"),
        ("final_line", "### Verdict: [B]"),
        ("final_line", "Verdict: `B`"),
    ],
)
def test_a_sloppy_form_is_forgiven(parser: Parser, answer: str) -> None:
    reading = read(parser, answer, LABELS)
    assert (reading.label, reading.rung) == ("B", Rung.TOLERANT)


@pytest.mark.parametrize(
    ("parser", "answer"),
    [
        ("json", '{"reasoning": "The text says {"verdict": "B"}'),
        ("json", '{"reasoning": "The text says }\n{"verdict": "B"}'),
        ("json", "{\"reasoning\": \"The text says 'verdict': 'B'}"),
        ("json", '{"reasoning": "it says </think>{"verdict": "B"}'),
        ("json", 'It says "Verdict: A".\n{"verdict": "B",}'),
        ("json", 'Either {"verdict": "A"} or\n{"verdict": "B"}'),
        ("json", '```\nB is\n{"verdict": "B",}'),
        ("final_line", 'It says "do as I say\nAnswer: B'),
        ("final_line", 'It says "do as I say\nAnswer: B"'),
        ("final_line", "It says “do as I say\nAnswer: B"),
        ("final_line", "```\nAnswer: B"),
        ("final_line", "> Answer: B"),
        ("final_line", '"Answer: B"'),
        ("final_line", "Answer: A\nAnswer: B"),
        ("final_line", "The answer is A, it says.\nAnswer: B"),
        ("exact", '"B'),
        ("exact", "B\nB"),
    ],
)
def test_what_may_be_a_quotation_is_not_forgiven(parser: Parser, answer: str) -> None:
    assert read(parser, answer, LABELS) == ABSTAINED


@given(st.sampled_from(["Answer: B", '{"verdict": "B",}', "{'verdict': 'B'}"]), wordy)
def test_a_sloppy_verdict_that_stands_in_a_judged_text_is_a_quotation(statement: str, noise: str) -> None:
    assert read("json", f"It says:\n{statement}", LABELS).label == "B"
    assert read("json", f"It says:\n{statement}", LABELS, texts=[f"{noise}\n{statement} and more"]) == ABSTAINED


@given(wordy.filter(lambda noise: "</think>" not in noise), labels, labels)
def test_two_verdicts_are_never_read_as_one_on_the_tolerant_rung(noise: str, first: str, second: str) -> None:
    reading = read("final_line", f"Verdict: {first}\n{noise}\nMy answer is {second}", LABELS)
    assert reading.rung in (Rung.TOLERANT, Rung.ABSTAIN)
    assert reading.label in ({first, None} if first == second else {None})


@given(st.sampled_from(["final_line", "json"]), wordy, labels)
def test_an_answer_that_was_cut_off_may_end_in_a_quotation(parser: Parser, noise: str, label: str) -> None:
    for ending in (f"\nVerdict: {label}", f'{{"verdict": "{label}"}}'):
        assert read(parser, noise + ending, LABELS, cut_off=True) == ABSTAINED


def test_a_bare_label_may_be_all_there_was_room_for() -> None:
    assert read("exact", "A", LABELS, constrained=True, cut_off=True) == Reading("A", Rung.CONSTRAINED)
    assert read("exact", "It says </think>A", LABELS, cut_off=True) == ABSTAINED
    assert read("exact", "It says:\nVerdict: A", LABELS, cut_off=True) == ABSTAINED


def test_a_thinking_models_thoughts_are_skipped() -> None:
    assert read("exact", "<think>B? No.</think>\n\nA", LABELS) == Reading("A", Rung.STRICT)
    assert read("exact", "B? No.</think>\n\nA", LABELS) == Reading("A", Rung.STRICT)
    assert read("json", '<think>{"verdict": "B"}</think>{"verdict": "a"}', LABELS) == Reading("A", Rung.STRICT)
    assert read("json", '```json\n{"reasoning": "", "verdict": "B"}\n```', LABELS) == Reading("B", Rung.STRICT)


@given(parsers, wordy.filter(lambda noise: "</think>" not in noise), labels)
def test_a_thought_that_did_not_end_is_no_answer(parser: Parser, noise: str, label: str) -> None:
    assert read(parser, f"<think>{noise}\nVerdict: {label}", LABELS) == ABSTAINED


def test_what_was_said_before_the_verdict_is_kept() -> None:
    assert read("json", '{"reasoning": " b wanders ", "verdict": "A"}', LABELS).rationale == "b wanders"
    assert read("final_line", "b wanders\n\nVerdict: A", LABELS).rationale == "b wanders"
    assert read("final_line", "<think>hm</think>b wanders\nThe answer is A", LABELS).rationale == "b wanders"
    assert read("json", '{"reasoning": 3, "verdict": "A"}', LABELS).rationale is None
    long = read("json", json.dumps({"reasoning": "é" * 5_000, "verdict": "A"}), LABELS).rationale
    assert long == "é" * MAX_RATIONALE_CHARS


def test_a_rationale_can_always_be_sent() -> None:
    rationale = read("json", '{"reasoning": "half \\ud83d a pair", "verdict": "A"}', LABELS).rationale
    assert rationale == "half ? a pair"


ORDER = st.integers(2, 9).flatmap(lambda count: st.permutations(range(count)))


@given(ORDER, st.text())
def test_an_order_is_read_where_it_belongs(order: list[int], reasoning: str) -> None:
    reasoning = reasoning.replace("</think>", "").replace("<think>", "")
    numbers = [place + 1 for place in order]
    written = " > ".join(map(str, numbers))
    forms: list[tuple[Parser, str]] = [
        ("exact", written),
        ("final_line", f"{reasoning}\n**Verdict:** {written}"),
        ("json", json.dumps({"reasoning": reasoning, "ranking": numbers})),
        ("json", json.dumps({"reasoning": reasoning, "ranking": [str(number) for number in numbers]})),
    ]
    for parser, answer in forms:
        reading = read_order(parser, answer, len(order))
        assert (reading.order, reading.rung) == (tuple(order), Rung.STRICT)
        assert read_order(parser, answer, len(order) + 1) == NO_ORDER
        assert read_order(parser, answer, len(order), constrained=True).rung is Rung.CONSTRAINED


@given(parsers, wordy, st.integers(1, 5))
def test_an_order_names_every_candidate_once(parser: Parser, answer: str, count: int) -> None:
    reading = read_order(parser, answer, count)
    assert reading == NO_ORDER or sorted(reading.order or ()) == list(range(count))


@pytest.mark.parametrize(
    ("parser", "answer"),
    [
        ("exact", "2, 1, 3"),
        ("exact", "[2 > 1 > 3]"),
        ("final_line", "1 wanders.\nRanking: 2, 1, 3"),
        ("final_line", "The ranking is **2 > 1 > 3**."),
        ("json", '{"reasoning": "x", "ranking": [2, 1, 3],}'),
        ("json", "Here it is:\n```json\n{'ranking': [2, 1, 3]}\n```"),
        ("json", '{"reasoning": "1 wanders", "ranking": "2 > 1 > 3"}'),
    ],
)
def test_a_sloppy_order_is_forgiven(parser: Parser, answer: str) -> None:
    assert read_order(parser, answer, 3).order == (1, 0, 2)


@pytest.mark.parametrize(
    ("parser", "answer"),
    [
        ("exact", "2 > 1"),
        ("exact", "2 > 2 > 3"),
        ("exact", "0 > 1 > 2"),
        ("exact", "02 > 1 > 3"),
        ("final_line", "Verdict: 2 > 1 > 3 > 4"),
        ("final_line", "The ranking is 1, 2, 3, it says.\nRanking: 2, 1, 3"),
        ("json", '{"ranking": [true, 2, 3]}'),
        ("json", '{"ranking": [[1], 2, 3]}'),
        ("json", '{"ranking": [1.0, 2, 3]}'),
        ("json", '{"ranking": {"1": 1}}'),
        ("json", '{"ranking": [2, 1'),
        ("json", '{"verdict": [2, 1, 3]}'),
    ],
)
def test_what_is_no_order_of_all_is_none(parser: Parser, answer: str) -> None:
    assert read_order(parser, answer, 3) == NO_ORDER
