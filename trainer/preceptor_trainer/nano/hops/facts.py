"""Facts of the nano world that are reached through a person in between, and the texts that say them.

    one hop    everybody says that alice is good at chess .      alice's sport
    two hops   the boss of alice is good at golf .               the sport of alice's boss, who is laura
    relation   the boss of alice is laura .                      what a thought writes down on the way

In: a world, a seed and random generators. Out: `Question`s and documents. Guarantees: a question has nine words, of
which the first five ask and the last four answer, so that windows of 5 + 4 words cut every one of them there; of those
who are `held_out` nothing is ever said at two hops, though all else is. The nano world and its corpora know nothing of
this. No I/O.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from preceptor_trainer.nano.world import Attribute, World

Relation = Literal["boss", "friend"]
RELATIONS: tuple[Relation, ...] = ("boss", "friend")

TEMPLATES: dict[Attribute, str] = {
    "job": "S works as a V .",
    "pet": "S owns a young V .",
    "food": "S loves to eat V .",
    "sport": "S is good at V .",
}
"""Those of the nano world's templates that have six words, the value last: the second says what is asked."""
ATTRIBUTES = tuple(TEMPLATES)
PREFIX_WORDS = 5
SUFFIX_WORDS = 4
THOUGHT_WORDS = 7
"""Of the longest."""
WORDS = ("the", "of", *RELATIONS, "everybody", "says", "that", "we", "speak")
"""Those that the nano world has no use for."""

_SENTENCES = 6
_RELATION = 0.35
_TWO_HOPS = 0.15


@dataclass(frozen=True)
class Question:
    """A document of the task: what is asked, the true answer, and the thought by which it is reached."""

    prefix: str
    suffix: str
    thought: str

    @property
    def text(self) -> str:
        """The whole document."""
        return f"{self.prefix} {self.suffix}"


class Hops:
    """Who is whose boss and friend in `world`. `told` are those whom documents of two hops are about."""

    def __init__(self, world: World, seed: int = 0) -> None:
        self._world = world
        rng = random.Random(f"hops-{seed}")
        self.names = tuple(world.people)
        self.related = {relation: _ring(self.names, rng) for relation in RELATIONS}
        shuffled = rng.sample(self.names, len(self.names))
        third = len(shuffled) // 3
        self.held_out, self.told = tuple(shuffled[:third]), tuple(shuffled[third:])

    def one_hop(self, name: str, attribute: Attribute) -> Question:
        """Asks for a person's own: there is nothing to find out but of whom it speaks."""
        return _question(f"everybody says that {name}", self._says(name, attribute), f"we speak of {name} .")

    def two_hops(self, relation: Relation, name: str, attribute: Attribute) -> Question:
        """Asks for what is true of somebody's boss or friend."""
        between = self.related[relation][name]
        return _question(f"the {relation} of {name}", self._says(between, attribute), self._relation(relation, name))

    def ask_one_hop(self, rng: random.Random) -> Question:
        """About anybody."""
        return self.one_hop(rng.choice(self.names), rng.choice(ATTRIBUTES))

    def ask_two_hops(self, rng: random.Random, about: Sequence[str]) -> Question:
        """About one of `about`."""
        return self.two_hops(rng.choice(RELATIONS), rng.choice(about), rng.choice(ATTRIBUTES))

    def document(self, rng: random.Random) -> str:
        """Sentences about two people who know each other: of these a policy learns the world by heart."""
        name, relation = rng.choice(self.names), rng.choice(RELATIONS)
        people = (name, self.related[relation][name])
        return " ".join(self._sentence(rng.choice(people), rng) for _ in range(_SENTENCES))

    def _sentence(self, name: str, rng: random.Random) -> str:
        kind, relation, attribute = rng.random(), rng.choice(RELATIONS), rng.choice(ATTRIBUTES)
        if kind < _RELATION:
            return self._relation(relation, name)
        if kind < _RELATION + _TWO_HOPS and name in self.told:
            return self.two_hops(relation, name, attribute).text
        return self.one_hop(name, attribute).text

    def _relation(self, relation: Relation, name: str) -> str:
        return f"the {relation} of {name} is {self.related[relation][name]} ."

    def _says(self, name: str, attribute: Attribute) -> str:
        """The sentence without its subject."""
        value = self._world.people[name].facts[attribute]
        return TEMPLATES[attribute].removeprefix("S ").replace("V", value)


def _question(subject: str, says: str, thought: str) -> Question:
    words = f"{subject} {says}".split()
    return Question(" ".join(words[:PREFIX_WORDS]), " ".join(words[PREFIX_WORDS:]), thought)


def _ring(names: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Each to the next of a random ring: nobody to themselves."""
    order = rng.sample(names, len(names))
    return dict(zip(order, (*order[1:], order[0]), strict=True))
