from __future__ import annotations

import pytest

from preceptor_trainer.teach.judge import Answered, quality_marks
from preceptor_trainer.teach.pairs import Ending, Pair


def answered(ending: Ending, first: str | None, last: str | None) -> Answered:
    return Answered(Pair("p", "good", "bad", "shuffle", ending), first, last)


def marks(*rows: Answered) -> dict[str, float]:
    return {name: mark.value for name, mark in quality_marks(rows, good_first="A", good_last="B").items()}


def test_a_judge_that_is_always_right_has_no_faults() -> None:
    found = marks(*(answered(ending, "A", "B") for ending in ("as_is", "good_cut", "bad_cut")))
    assert found["accuracy"] == found["right in both orders"] == found["accuracy, shuffle"] == 1
    assert found["position flips"] == found["completeness bias"] == found["without a verdict"] == 0


def test_one_that_likes_the_first_place_is_right_half_the_time_and_always_flips() -> None:
    found = marks(*(answered(ending, "A", "A") for ending in ("as_is", "good_cut", "bad_cut")))
    assert found["accuracy"] == 0.5
    assert found["right in both orders"] == 0
    assert found["position flips"] == 1
    assert found["completeness bias"] == 0


def test_one_that_likes_what_feels_complete_is_found_out() -> None:
    found = marks(answered("as_is", "A", "B"), answered("good_cut", "B", "A"), answered("bad_cut", "A", "B"))
    assert found["completeness bias"] == 1
    assert found["position flips"] == 0


def test_a_tie_is_wrong_but_no_flip_unless_the_other_order_gives_a_winner() -> None:
    found = marks(answered("as_is", "tie", "tie"), answered("good_cut", "tie", "B"), answered("bad_cut", "A", "B"))
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["position flips"] == pytest.approx(1 / 3)


def test_an_answer_without_a_verdict_is_wrong_and_counted() -> None:
    found = marks(answered("as_is", None, "B"), answered("good_cut", None, None), answered("bad_cut", "A", "B"))
    assert found["accuracy"] == 0.5
    assert found["without a verdict"] == 0.5
    assert found["position flips"] == 0
