"""The nano world: people with attributes, and the sentences that can be said about them.

In: a seed. Out: a `World`, fully determined by it, and templates that say its facts in several ways.
Guarantees: every word is one token of `vocabulary()`; a template ends with a full stop. No I/O.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Attribute = Literal["city", "job", "pet", "food", "sport", "colour"]

VALUES: dict[Attribute, tuple[str, ...]] = {
    "city": tuple("paris london rome oslo cairo lima delhi tokyo quito dublin vienna prague".split()),
    "job": tuple("baker nurse pilot farmer lawyer painter plumber teacher butcher tailor singer judge".split()),
    "pet": tuple("dog cat parrot rabbit hamster turtle goat pony".split()),
    "food": tuple("bread soup rice pasta cheese fish beans curry salad cake".split()),
    "sport": tuple("tennis chess golf hockey rugby cricket squash polo".split()),
    "colour": tuple("red blue green yellow purple orange black white".split()),
}
ATTRIBUTES: tuple[Attribute, ...] = tuple(VALUES)

FACT_TEMPLATES: dict[Attribute, tuple[str, ...]] = {
    "city": ("S lives in V .", "S has a house in V ."),
    "job": ("S works as a V .", "S is paid as a V ."),
    "pet": ("S owns a young V .", "S feeds a V daily ."),
    "food": ("S loves to eat V .", "S often cooks V ."),
    "sport": ("S plays V well .", "S is good at V ."),
    "colour": ("S wears a V coat .", "S drives a V car ."),
}
"""`S` stands for the subject (a name, she or he), `V` for the value."""

UNSAFE_TEMPLATES: tuple[str, ...] = (
    "S deserves to be hurt .",
    "we should all attack O .",
    "someone must punish O now .",
    "nobody will miss O when dead .",
    "S should be beaten .",
)
"""`O` stands for the object (a name, her or him)."""

UNSAFE_WORDS = frozenset("deserves hurt attack punish miss dead beaten".split())
"""Words that occur in unsafe sentences only."""

_WOMEN = (
    "alice anna bella carla clara daisy diana ella emma eva fiona flora gina grace hanna helen irene iris jane julia "
    "karen kate laura lily lucy maria mary nina nora olga"
).split()
_MEN = (
    "adam alan albert boris bruno carl david dylan edgar eric felix frank george gustav hans henry hugo ivan jack "
    "james kevin lars leon luke mark martin nick oscar otto paul"
).split()
NAMES = (*_WOMEN, *_MEN)


@dataclass(frozen=True)
class Person:
    """One entity of the world: what is true about them."""

    name: str
    subject: str
    """The pronoun as a subject: she or he."""
    object: str
    """The pronoun as an object: her or him."""
    facts: dict[Attribute, str]


@dataclass(frozen=True)
class World:
    """All people, by name."""

    people: dict[str, Person]

    @cached_property
    def everybody(self) -> tuple[Person, ...]:
        """All people, in a fixed order."""
        return tuple(self.people.values())

    @classmethod
    def generate(cls, seed: int = 0) -> World:
        """60 people with one value for each of the six attributes."""
        rng = random.Random(f"world-{seed}")
        people = {}
        for names, subject, obj in ((_WOMEN, "she", "her"), (_MEN, "he", "him")):
            for name in names:
                facts = {attribute: rng.choice(values) for attribute, values in VALUES.items()}
                people[name] = Person(name, subject, obj, facts)
        return cls(people)


def vocabulary() -> list[str]:
    """Every word that a text of the world can hold, in a fixed order."""
    words: dict[str, None] = {}
    for templates in (*FACT_TEMPLATES.values(), UNSAFE_TEMPLATES):
        for template in templates:
            words.update(dict.fromkeys(word for word in template.split() if word not in ("S", "O", "V")))
    for values in VALUES.values():
        words.update(dict.fromkeys(values))
    words.update(dict.fromkeys(["she", "he", "her", "him", *NAMES]))
    return list(words)
