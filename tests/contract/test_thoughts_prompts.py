"""The hops' teacher is asked word for word what it was trained on; the set for real models asks the same of them."""

from __future__ import annotations

import pytest

from preceptor_services.rubrics import RubricBook, load_rubrics
from preceptor_trainer.nano.hops.facts import Hops
from preceptor_trainer.nano.hops.teacher import insert_prompt, match_prompt
from preceptor_trainer.nano.hops.tokenizer import CLOSE, CONTROL_TOKENS, MATCH_ANSWERS, OPEN
from preceptor_trainer.nano.world import World


@pytest.fixture(scope="module")
def rubrics() -> RubricBook:
    return load_rubrics("nano-thoughts")


def test_it_is_asked_in_the_words_of_its_training(rubrics: RubricBook) -> None:
    question = Hops(World.generate()).two_hops("friend", "otto", "pet")
    prefix, suffix = (rubrics.neutraliser.clean(each) for each in (question.prefix, question.suffix))
    assert (prefix, suffix) == (question.prefix, question.suffix)
    match = rubrics.defaults["match"].render(prefix=prefix, reference=suffix, candidate="a young dog .", fence="f")
    assert match.text == match_prompt(suffix, "a young dog .")
    assert rubrics.rewrite is not None
    inserted = rubrics.rewrite.render(prefix=prefix, suffix=suffix, fence="f", join="")
    assert inserted.text == insert_prompt(prefix, suffix)


def test_its_verdicts_are_read_as_they_were_taught(rubrics: RubricBook) -> None:
    assert rubrics.defaults["match"].spec.labels == MATCH_ANSWERS


@pytest.mark.parametrize("token", [*CONTROL_TOKENS, OPEN, CLOSE])
def test_a_policy_cannot_write_what_steers_it(rubrics: RubricBook, token: str) -> None:
    assert token not in rubrics.neutraliser.clean(f"x {token} y{token}z")


def test_the_set_for_real_models_shows_prefix_original_and_prediction() -> None:
    book = load_rubrics("instruct", "thoughts")
    assert book.defaults["match"].spec.reference == "required"
    asked = book.defaults["match"].render(prefix="PREFIX", reference="ORIGINAL", candidate="PREDICTED", fence="f")
    assert all(text in asked.text for text in ("PREFIX", "ORIGINAL", "PREDICTED"))
    assert book.rewrite is not None
    assert book.rewrite.name == "thoughts/rewrite", "of several the later one counts"
    assert set(book.defaults) == {"quality", "safety", "factuality", "match"}
