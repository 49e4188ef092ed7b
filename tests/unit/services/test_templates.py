from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.templates import PromptError, compile_prompt, render

VARIABLES = ("prefix", "candidate", "candidates")
PIECES = st.sampled_from(["{{ prefix }}", "{{ candidate }}", "{# a remark #}", "words \n", "<a>", "\n", "  "])


def test_a_template_puts_texts_together() -> None:
    template = compile_prompt(
        "{{ prefix | trim }}{% if candidate %}: {{ candidate }}{% else %}.{% endif %}{# a remark #}", VARIABLES
    )
    assert render(template, prefix=" p ", candidate="c", candidates=[]) == "p: c"
    assert render(template, prefix=" p ", candidate="", candidates=[]) == "p."


@given(st.lists(PIECES, max_size=32), st.text(), st.none() | st.text())
def test_a_template_without_conditions_says_what_jinja_makes_of_it(
    pieces: list[str], prefix: str, candidate: str | None
) -> None:
    template = compile_prompt("".join(pieces), VARIABLES)
    assert template.parts is not None
    assert render(template, prefix=prefix, candidate=candidate) == template.template.render(
        prefix=prefix, candidate=candidate
    )


def test_a_template_may_loop_over_candidates() -> None:
    from preceptor_services.rubrics import Numbered

    template = compile_prompt("{% for one in candidates %}[{{ one.number }}] {{ one.text }}\n{% endfor %}", VARIABLES)
    assert render(template, prefix="", candidate="", candidates=[Numbered(1, "a"), Numbered(2, "b")]) == (
        "[1] a\n[2] b\n"
    )


def test_a_fence_may_stand_around_many_examples() -> None:
    assert render(compile_prompt("{{ fence }}" * 100, ["fence"]), fence="f") == "f" * 100


def test_texts_are_not_read_as_templates() -> None:
    template = compile_prompt("{{ candidate }}", VARIABLES)
    assert render(template, candidate="{{ prefix }}{% for %}") == "{{ prefix }}{% for %}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ candidate.__class__ }}", "the attribute '__class__' is not allowed"),
        ("{{ candidate.upper() }}", "Call is not allowed"),
        ("{{ candidate * 1000000 }}", "Mul is not allowed"),
        ("{{ candidate ~ candidate }}", "Concat is not allowed"),
        ("{{ candidate[0] }}", "Getitem is not allowed"),
        ("{{ '%9999999999d' | format(1) }}", "the filter 'format' is not allowed"),
        ("{% for a in candidates %}{% for b in candidates %}{% endfor %}{% endfor %}", "not inside another loop"),
        ("{% for a in candidates recursive %}{% endfor %}", "a loop must run over candidates"),
        ("{% for a in [1, 2] %}{% endfor %}", "a loop must run over candidates"),
        ("{% for a in prefix %}{{ prefix }}{% endfor %}", "a loop must run over candidates"),
        ("{{ prefix }}" * 33, "'prefix' is named more than 32 times"),
        ("{% macro m() %}{% endmacro %}", "Macro is not allowed"),
        ("{% set x = prefix %}", "Assign is not allowed"),
        ("{% include 'etc' %}", "Include is not allowed"),
        ("{% if candidate is callable %}{% endif %}", "the test 'callable' is not allowed"),
        ("{{ candidat }}", "'candidat' is undefined: a template may use candidate, candidates, prefix"),
        ("{{ candidate", "is not a Jinja template"),
        ("{% if %}", "is not a Jinja template"),
        ("{{ " + "1" * 5_000 + " }}", "is not a Jinja template: Exceeds the limit"),
        ("{{ " + "(" * 5_000 + "candidate" + ")" * 5_000 + " }}", "is nested too deeply"),
        ("{{ candidate" + ".text" * 150 + " }}", "is nested too deeply"),
        ("{% if candidate %}" * 120 + "{% endif %}" * 120, "is nested too deeply"),
        ("{{ " + "not " * 220 + "candidate }}", "is nested too deeply"),
    ],
)
def test_what_a_prompt_has_no_use_for_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        compile_prompt(text, VARIABLES)
    if "nested too" not in message and "Exceeds" not in message:
        with pytest.raises(PromptError) as raised:
            compile_prompt("one\n" + text, VARIABLES)
        assert raised.value.line == 2


def test_an_attribute_that_is_not_there_is_found_when_rendering() -> None:
    with pytest.raises(PromptError, match="has no attribute"):
        render(compile_prompt("{{ candidate.number }}", VARIABLES), candidate="text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ candidate | first }}", "No first item"),
        ("{{ prefix | length }}", "has no len"),
        ("{% if candidate < 1 %}{% endif %}", "not supported between"),
    ],
)
def test_what_a_template_cannot_do_with_a_text_is_told(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        render(compile_prompt(text, VARIABLES), candidate="", prefix=None)
