from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.teach.corruption import KINDS, Kind, broken_off, completed, corrupt, ends_whole

TEXT = "Anna Berg was born in 1912, near Oslo.\n She painted ships, mostly at night, and sold few."
DONOR = "In Rome the Tiber rose by 14 metres and took the old bridge with it. Nobody drowned that day at all."

words = st.lists(st.sampled_from("ab cde f. 12 Rome, x? Q".split()), min_size=4, max_size=30)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_the_words(kind: Kind) -> None:
    for seed in range(50):
        corrupted = corrupt(TEXT, DONOR, random.Random(seed), [kind])
        assert corrupted is not None
        assert corrupted[0] == kind
        assert corrupted[1].split() != TEXT.split()


@given(words, words, st.integers(0, 100))
def test_a_corrupted_text_is_never_the_text(text: list[str], donor: list[str], seed: int) -> None:
    corrupted = corrupt(" ".join(text), " ".join(donor), random.Random(seed))
    assert corrupted is None or corrupted[1].split() != text


def test_white_space_stays_where_it_was() -> None:
    corrupted = corrupt(" one two\n\nthree  four five six", DONOR, random.Random(0), ["foreign"])
    assert corrupted == ("foreign", " In Rome\n\nthe  Tiber rose by")


def test_a_shuffled_text_has_the_same_words() -> None:
    corrupted = corrupt(TEXT, DONOR, random.Random(1), ["shuffle"])
    assert corrupted is not None
    assert sorted(corrupted[1].split()) == sorted(TEXT.split())


def test_a_misstated_text_differs_in_names_and_numbers_alone() -> None:
    corrupted = corrupt(TEXT, DONOR, random.Random(1), ["misstate"])
    assert corrupted is not None
    changed = [(a, b) for a, b in zip(TEXT.split(), corrupted[1].split(), strict=True) if a != b]
    assert "1912," in dict(changed)
    assert all(a[0].isupper() or a[0].isdigit() for a, _ in changed)


def test_what_cannot_be_changed_is_not_corrupted() -> None:
    assert corrupt("too short", DONOR, random.Random(0)) is None
    assert corrupt("no names or numbers here at all", DONOR, random.Random(0), ["misstate"]) is None
    assert corrupt("a a a a a a", DONOR, random.Random(0), ["shuffle", "repeat"]) is None


@pytest.mark.parametrize(
    ("text", "whole"),
    [("It ends.", True), ('"Does it?" ', True), ("it goes on", False), ("on, and", False), ("a b .", True)],
)
def test_sentence_ends_are_seen(text: str, whole: bool) -> None:
    assert ends_whole(text) is whole


def test_a_text_is_completed_where_its_last_sentence_ends() -> None:
    assert completed("It was late. They went home. And then") == "It was late. They went home."
    assert completed("It. was late and they went home, and") == "It. was late and they went home, and."
    assert completed("she works . he lives in") == "she works . he lives in ."


@given(words, st.integers(0, 100))
def test_what_is_completed_feels_complete_and_what_is_broken_off_does_not(text: list[str], seed: int) -> None:
    joined = " ".join(["x", *text])
    assert ends_whole(completed(joined))
    cut = broken_off(joined, random.Random(seed))
    assert not ends_whole(cut)
    assert joined.startswith(cut)
    assert cut != joined
