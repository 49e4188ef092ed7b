"""A teacher is taught with the prompts that it will serve with, and its answers are read as the services read them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byte_model import byte_tokenizer
from preceptor_client.contract import Mode, Parser, RubricSpec
from preceptor_services.parsing import Rung, read
from preceptor_services.rubrics import load_rubrics
from preceptor_trainer.codec import Codec
from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.tokenizer import teacher_tokenizer
from preceptor_trainer.nano.world import World
from preceptor_trainer.teach.wording import Axis, Wording, fence_for

NANO = text(document(World.generate(), random.Random(7), RAW, sentences=12)).split()
TEXTS = {
    "nano": (" ".join(NANO[:24]), " ".join(NANO[24:40]), " ".join(NANO[30:46])),
    "instruct": ("It was\n\nlate, and", " the {{ bar }} closed.", "so {% if %} what?\n"),
}


def codec(rubrics: str) -> Codec:
    return Codec(teacher_tokenizer() if rubrics == "nano" else byte_tokenizer())


def expected(rubrics: str, prompt: Any) -> str:
    if rubrics == "nano":
        return str(prompt.text)
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
    return str(byte_tokenizer().apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


@pytest.mark.parametrize("rubrics", ["nano", "instruct"])
def test_prompts_are_those_of_the_services(rubrics: str) -> None:
    prefix, a, b = TEXTS[rubrics]
    own, book = Wording(rubrics, codec(rubrics)), load_rubrics(rubrics)
    decode = codec(rubrics).tokenizer.decode
    for axis, mode, texts in (
        ("quality", Mode.PAIRWISE, {"a": a, "b": b}),
        ("safety", Mode.POINTWISE, {"candidate": a}),
    ):
        seen = {"prefix": prefix, "reference": None, **texts}
        fence = fence_for(sorted(each for each in seen.values() if each))
        theirs = book.defaults[axis].render(**seen, fence=fence)
        assert decode(own.axis(axis, mode).render(**seen)) == expected(rubrics, theirs)


@pytest.mark.parametrize("rubrics", ["nano", "instruct"])
def test_rewrites_are_asked_for_as_by_the_services(rubrics: str) -> None:
    prefix, suffix, _ = TEXTS[rubrics]
    rewrite = load_rubrics(rubrics).rewrite
    assert rewrite is not None
    words = rewrite.spec.join_words
    join = " ".join(prefix.split()[-words:]) if words else ""
    fence = fence_for(sorted(each for each in (prefix, suffix, join) if each))
    theirs = rewrite.render(prefix=prefix, suffix=suffix, join=join, fence=fence)
    own = Wording(rubrics, codec(rubrics)).rewriting().prompt(prefix, suffix)
    assert codec(rubrics).tokenizer.decode(own) == expected(rubrics, theirs)


def axis_of(parser: Parser) -> Axis:
    labels = {"A": 1.0, "B": 0.0, "tie": 0.5}
    spec = RubricSpec(axis="quality", mode=Mode.PAIRWISE, prompt="x", labels=labels, parser=parser)
    return Axis(spec, codec("instruct"))


ANSWERS = {
    "json": [
        '{"reasoning": "a } is odd", "verdict": "A"}',
        ' {"verdict": "tie"}\n',
        '<think>B?</think>{"verdict": "B"}',
    ],
    "exact": ["A", " tie\n", "<think>hm</think>B"],
    "final_line": ["Both are fine.\nVerdict: A", "verdict: tie.", "VERDICT :  B"],
}


@pytest.mark.parametrize(("parser", "answer"), [(parser, each) for parser in ANSWERS for each in ANSWERS[parser]])
def test_answers_in_the_form_asked_for_are_read(parser: Parser, answer: str) -> None:
    axis = axis_of(parser)
    theirs = read(parser, answer, axis.spec.labels)
    assert theirs.rung is Rung.STRICT
    assert axis.read(answer) == theirs.label


pieces = st.sampled_from(
    [
        "A",
        "B",
        "tie",
        "a",
        "Verdict: ",
        "verdict",
        '{"verdict": "',
        '"}',
        '"',
        "{",
        "}",
        "\n",
        ".",
        "<think>",
        "</think>",
        " ",
    ]
)


@given(st.sampled_from(["json", "exact", "final_line"]), st.lists(pieces, max_size=6).map("".join))
def test_what_is_read_here_is_read_the_same_by_the_services(parser: Parser, answer: str) -> None:
    axis = axis_of(parser)
    label = axis.read(answer)
    assert label is None or label == read(parser, answer, axis.spec.labels).label
