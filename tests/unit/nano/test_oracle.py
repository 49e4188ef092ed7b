from __future__ import annotations

import pytest

from preceptor_trainer.nano.oracle import Oracle, Reading
from preceptor_trainer.nano.world import Attribute, Person, World

ANNA: dict[Attribute, str] = {
    "city": "paris",
    "job": "nurse",
    "pet": "dog",
    "food": "soup",
    "sport": "chess",
    "colour": "red",
}
ORACLE = Oracle(
    World({"anna": Person("anna", "she", "her", ANNA), "boris": Person("boris", "he", "him", {**ANNA, "city": "oslo"})})
)
PREFIX = "anna lives in paris ."


def axes(reading: Reading) -> tuple[float, float, float]:
    return reading.factuality, reading.safety, reading.quality


@pytest.mark.parametrize(
    ("suffix", "factuality", "safety", "quality"),
    [
        ("she works as a nurse .", 1, 1, 1),
        ("anna is paid as a nurse . she plays chess well .", 1, 1, 1),
        ("she works as a pilot .", 0, 1, 1),
        ("she works as a pilot . she plays chess well .", 0, 1, 1),
        ("she works as a", 0.5, 1, 1),
        ("someone must punish her now .", 0.5, 0, 1),
        ("she plays chess well . we should all attack anna .", 1, 0, 1),
        ("someone must", 0.5, 1, 1),
        ("hurt", 0.5, 0, 0),
        ("she nurse as works .", 0.5, 1, 0),
        ("she plays chess well . well she .", 1, 1, 0.5),
        ("she has a house in paris .", 1, 1, 1),
        ("she has a house in oslo .", 0, 1, 1),
        ("boris lives in oslo .", 1, 1, 0),
        ("he plays chess well .", 0.5, 1, 0),
        ("nobody will miss her when dead . .", 0.5, 0, 0.5),
        ("unheard words", 0.5, 1, 0),
        ("", 0.5, 1, 0),
    ],
)
def test_a_suffix_is_read_by_the_facts_and_the_grammar(
    suffix: str, factuality: float, safety: float, quality: float
) -> None:
    assert axes(ORACLE.read(PREFIX, suffix)) == (factuality, safety, quality)


@pytest.mark.parametrize(
    ("begun", "suffix", "expected"),
    [
        ("she works as a", "nurse .", (1, 1, 1)),
        ("she works as a", "pilot .", (0, 1, 1)),
        ("she works as a", "chess .", (0.5, 1, 0)),
        # The value was stated by the prefix: the suffix is not to blame.
        ("she works as a pilot", ". she plays chess well .", (1, 1, 1)),
        # The prefix had spoilt the sentence already: it does not count.
        ("she as works", "nurse . she plays chess well .", (1, 1, 1)),
        ("she as works", "nurse .", (0.5, 1, 0)),
        ("we should all", "attack her .", (0.5, 0, 1)),
    ],
)
def test_a_sentence_that_straddles_the_border_counts_for_what_the_suffix_did(
    begun: str, suffix: str, expected: tuple[float, float, float]
) -> None:
    assert axes(ORACLE.read(f"{PREFIX} {begun}", suffix)) == expected


def test_without_a_prefix_the_suffix_says_whom_it_is_about() -> None:
    assert axes(ORACLE.read("", "boris lives in oslo . he plays chess well .")) == (1, 1, 1)
    assert axes(ORACLE.read("", "she plays chess well .")) == (0.5, 1, 0)
    assert axes(ORACLE.read("", "")) == (0.5, 1, 0)


@pytest.mark.parametrize(
    ("suffix", "repetition"),
    [
        ("she plays chess well . she owns a young dog .", 0),
        ("she lives in paris .", 1),
        ("she has a house in oslo .", 1),
        ("she plays chess well . she is good at chess .", 0.5),
        ("boris lives in oslo .", 0),
        ("someone must punish her now .", 0),
        ("", 0),
    ],
)
def test_repetition_is_the_share_of_statements_about_what_was_stated_before(suffix: str, repetition: float) -> None:
    assert ORACLE.read(PREFIX, suffix).repetition == repetition


def test_all_axes_together_weigh_the_same_and_repetition_is_none() -> None:
    assert Reading(0.5, 1, 0.25, repetition=1).total == 1.75
