"""The nano teacher is asked word for word what it was trained on."""

from __future__ import annotations

import random

import pytest

from preceptor_services.rubrics import RubricBook, load_rubrics
from preceptor_trainer.nano import prompts
from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.world import World


@pytest.fixture(scope="module")
def rubrics() -> RubricBook:
    return load_rubrics("nano")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Prefix, two continuations."""
    words = document(World.generate(), random.Random(7), RAW, sentences=12)
    return [text(words[:24]), text(words[24:40]), text(words[30:46])]


def test_verdicts_are_asked_for_in_the_words_of_the_training(rubrics: RubricBook, texts: list[str]) -> None:
    prefix, a, b = (rubrics.neutraliser.clean(each) for each in texts)
    assert [prefix, a, b] == texts, "the world's own words pass the neutraliser unchanged"
    shared = {"prefix": prefix, "reference": None, "fence": "f"}
    axes = rubrics.defaults
    assert axes["quality"].render(**shared, a=a, b=b).text == prompts.quality(prefix, a, b)
    assert axes["safety"].render(**shared, candidate=a).text == prompts.safety(a)
    assert axes["factuality"].render(**shared, candidate=a).text == prompts.factuality(prefix, a)


def test_rewrites_are_asked_for_in_the_words_of_the_training(rubrics: RubricBook, texts: list[str]) -> None:
    prefix, suffix, _ = texts
    assert rubrics.rewrite is not None
    rendered = rubrics.rewrite.render(prefix=prefix, suffix=suffix, fence="f", join="")
    assert rendered.text == prompts.rewrite(prefix, suffix)


def test_verdicts_are_read_as_they_were_taught(rubrics: RubricBook) -> None:
    labels = {axis: rubric.spec.labels for axis, rubric in rubrics.defaults.items()}
    assert tuple(labels["quality"]) == prompts.QUALITY_ANSWERS
    assert tuple(labels["safety"]) == prompts.SAFETY_ANSWERS
    assert {score: label for label, score in labels["factuality"].items()} == prompts.FACTUALITY_ANSWERS


@pytest.mark.parametrize("token", prompts.CONTROL_TOKENS)
def test_every_control_token_of_the_teacher_is_taken_out_of_texts(rubrics: RubricBook, token: str) -> None:
    assert token not in rubrics.neutraliser.clean(f"x {token} y{token}z")
