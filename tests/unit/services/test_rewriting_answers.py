from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.fencing import Neutraliser
from preceptor_services.rewriting.answers import same_text, with_margins_of, without_join, without_wrapping
from preceptor_services.rewriting.objections import Fault, Objection
from preceptor_services.rewriting.samples import Passage, Sample, read_sample
from preceptor_services.settings import RewritingSettings

FENCE = "0a1b2c3d"
JOIN = "the old man and the sea"
OLD, NEW = "was calm calm the.", "was calm that day."


@pytest.mark.parametrize(
    "answer",
    [
        f'"{NEW}"',
        f"“{NEW}”",
        f"‘{NEW}’",
        f"«{NEW}»",
        f"„{NEW}“",
        f"「{NEW}」",
        f"```\n{NEW}\n```",
        f"```text\n{NEW}```",
        f"<continuation>{NEW}</continuation>",
        f"[begin {FENCE}]\n{NEW}\n[end {FENCE}]",
        f'[begin {FENCE}]\n"{NEW}"\n[end {FENCE}]',
        f"...{NEW}",
        f"… {NEW}",
        f" {NEW}\n",
    ],
)
def test_what_stands_around_the_whole_text_is_taken_off(answer: str) -> None:
    assert without_wrapping(answer, OLD, FENCE) == NEW


@pytest.mark.parametrize(
    "answer",
    [
        NEW,
        '"Yes," he said, "I was."',
        "“Yes,” he said, “I was.”",
        '"Yes," he said.',
        "```\na\n``` and ```\nb",
        "<b>was</b> calm",
        "was calm...",
    ],
)
def test_what_belongs_to_the_text_is_left(answer: str) -> None:
    assert without_wrapping(answer, OLD, FENCE) == answer


@pytest.mark.parametrize("answer", [f'"{NEW}"', f"```\n{NEW}\n```", f"…{NEW}", f"<p>{NEW}</p>"])
def test_what_the_suffix_has_is_left(answer: str) -> None:
    suffix = answer.replace(NEW, OLD)
    assert without_wrapping(answer, suffix, FENCE) == answer


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("the old man and the sea was calm.", "was calm."),
        ("The Old man and the sea\nwas calm.", "was calm."),
        ("and the sea was calm.", "was calm."),
        ("was calm, the old man.", "was calm, the old man."),
        ("the old man and the sea the sea was calm.", "the sea was calm."),
        ("the old man and the seashore", "the old man and the seashore"),
        ("the old man and the sea", ""),
    ],
)
def test_repeated_words_of_the_join_are_taken_off(answer: str, rest: str) -> None:
    assert without_join(answer, JOIN) == rest


def test_words_with_which_the_suffix_begins_are_no_repetition() -> None:
    suffix = "sea was the colour of lead"
    assert without_join("sea was grey", JOIN, suffix) == "sea was grey"
    assert without_join(f"{JOIN} sea was grey", JOIN, suffix) == "sea was grey"


def test_a_join_that_ends_within_a_word_is_taken_off_there() -> None:
    assert without_join("the old harbour of Brest lay", "the old harbour of Br", "est ly", glued=True) == "est lay"
    assert without_join("Brest lay", "the old harbour of Br", "est ly", glued=True) == "Brest lay"


@given(st.text(), st.text())
def test_without_a_join_nothing_is_taken_off(answer: str, original: str) -> None:
    assert without_join(answer, "") == answer
    assert same_text(with_margins_of(original, answer), answer)


def test_a_rewrite_keeps_the_margins_of_the_suffix() -> None:
    assert with_margins_of("\n\n Old text. ", "New text.\n") == "\n\n New text. "
    assert with_margins_of("old", " new") == "new"


def sample_of(
    answer: str, suffix: str, prefix: str = f"So it was that {JOIN}", **settings: float
) -> Sample | Objection:
    neutraliser = Neutraliser()
    shown_prefix, shown_suffix = neutraliser.clean(prefix), neutraliser.clean(suffix)
    join = " ".join(shown_prefix.split()[-5:])
    passage = Passage(prefix, suffix, shown_prefix, shown_suffix, join, FENCE)
    return read_sample(answer, passage, neutraliser, RewritingSettings.model_validate(settings))


@given(st.text(min_size=1), st.text())
def test_a_copy_is_unchanged_to_the_letter(suffix: str, prefix: str) -> None:
    sample = sample_of(Neutraliser().clean(suffix), suffix, prefix)
    assert isinstance(sample, Sample)
    assert (sample.text, sample.unchanged) == (suffix, True)


@pytest.mark.parametrize("answer", [f" {OLD}\n", f'"{OLD}"', f"man and the sea {OLD}", f"…man and the sea\n{OLD}"])
def test_a_copy_that_is_dressed_up_is_unchanged(answer: str) -> None:
    sample = sample_of(answer, f" {OLD}")
    assert isinstance(sample, Sample)
    assert (sample.text, sample.unchanged) == (f" {OLD}", True)
    assert (sample.checks.length_ratio, sample.checks.kept) == (1, 1)


def test_a_repair_joins_the_prefix_as_the_suffix_did_and_is_measured() -> None:
    sample = sample_of(f"man and the sea {NEW}", f"\n{OLD} ")
    assert isinstance(sample, Sample)
    assert (sample.text, sample.unchanged) == (f"\n{NEW} ", False)
    assert (sample.checks.length_ratio, sample.checks.kept) == (1, 0.5)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", Fault.EMPTY),
        ("and the sea", Fault.EMPTY),
        ('"I can\'t assist with that."', Fault.DECLINED),
        (f"Here is the rewritten text: {NEW}", Fault.TALK),
        (f"[begin {FENCE}]\n{NEW}", Fault.MARKER),
        (NEW * 5, Fault.LOOPING),
        (f"{NEW} The boats lay in the harbour until the wind turned in the evening.", Fault.LENGTH),
    ],
)
def test_an_answer_that_gives_no_rewrite_says_why(answer: str, fault: Fault) -> None:
    sample = sample_of(answer, OLD)
    assert isinstance(sample, Objection)
    assert sample.fault is fault
