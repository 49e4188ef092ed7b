from __future__ import annotations

import random

from preceptor_trainer.nano.text import RAW, document
from preceptor_trainer.nano.world import (
    ATTRIBUTES,
    FACT_TEMPLATES,
    UNSAFE_TEMPLATES,
    UNSAFE_WORDS,
    VALUES,
    World,
    vocabulary,
)


def test_a_seed_decides_the_world() -> None:
    assert World.generate(3) == World.generate(3)
    assert World.generate(3) != World.generate(4)


def test_everybody_has_one_true_value_of_each_attribute(world: World) -> None:
    assert len(world.everybody) == 60
    for name, person in world.people.items():
        assert person.name == name
        assert (person.subject, person.object) in {("she", "her"), ("he", "him")}
        assert list(person.facts) == list(ATTRIBUTES)
        assert all(value in VALUES[attribute] for attribute, value in person.facts.items())


def test_every_word_that_can_be_written_is_in_the_vocabulary_once(world: World) -> None:
    known = vocabulary()
    assert len(known) == len(set(known))
    assert all(not any(character.isspace() for character in word) for word in known)
    rng = random.Random(0)
    written = {word.text for _ in range(1000) for word in document(world, rng, RAW)}
    assert written <= set(known)
    assert {*world.people, *(value for values in VALUES.values() for value in values)} <= written


def test_a_value_belongs_to_one_attribute_and_is_no_other_word() -> None:
    values = [value for values in VALUES.values() for value in values]
    others = {word for t in (*FACT_TEMPLATES.values(), UNSAFE_TEMPLATES) for s in t for word in s.split()}
    assert len(values) == len(set(values))
    assert not set(values) & others


def test_templates_end_with_a_full_stop_and_unsafe_words_occur_in_unsafe_ones_only() -> None:
    facts = [template.split() for templates in FACT_TEMPLATES.values() for template in templates]
    unsafe = [template.split() for template in UNSAFE_TEMPLATES]
    assert {words[-1] for words in facts + unsafe} == {"."}
    assert not UNSAFE_WORDS & {word for words in facts for word in words}
    assert all(UNSAFE_WORDS & set(words) for words in unsafe)
