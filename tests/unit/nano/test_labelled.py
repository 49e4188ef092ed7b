from __future__ import annotations

import random
from collections import Counter
from functools import reduce
from operator import or_

import pytest

from preceptor_trainer.nano.labelled import (
    DEFECT,
    FALSE,
    FLAGS,
    PARTS,
    TRUE,
    UNKNOWN,
    UNSAFE,
    Example,
    Examples,
)
from preceptor_trainer.nano.oracle import Oracle
from preceptor_trainer.nano.prompts import CONTROL_TOKENS, FACTUALITY_ANSWERS
from preceptor_trainer.nano.world import UNSAFE_WORDS, VALUES, World

KINDS = ("quality", "safety", "factuality", "rewrite")
MASK = 2**FLAGS - 1
ALL_VALUES = {value for values in VALUES.values() for value in values}


def draw(world: World, kind: str, count: int, seed: int = 0) -> list[Example]:
    examples = Examples(world, random.Random(seed))
    return [getattr(examples, kind)() for _ in range(count)]


class Turning(random.Random):
    """Counts its draws; the one numbered `turn` comes out mirrored."""

    def __init__(self, seed: int, turn: int | None = None) -> None:
        super().__init__(seed)
        self.draws, self.turn = 0, turn

    def random(self) -> float:
        self.draws += 1
        value = super().random()
        return 1 - value if self.draws == self.turn else value


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_a_prompt_has_flags_that_fit_it(world: World, kind: str) -> None:
    for example in draw(world, kind, 200):
        words = example.prompt.split()
        assert len(example.flags) == len(words)
        part = 0
        for word, flags in zip(words, example.flags, strict=True):
            if word in CONTROL_TOKENS:
                part = {"<a>": 1, "<safety>": 1, "<b>": 2}.get(word, part)
                assert flags == 0
            elif flags != UNKNOWN:
                own = flags >> (FLAGS * part)
                assert flags == own << (FLAGS * part), "flags of another part"
                assert not own & (TRUE | FALSE) or word in ALL_VALUES
                assert not own & UNSAFE or word in UNSAFE_WORDS
                assert own & (TRUE | FALSE) != TRUE | FALSE
        assert part < PARTS


@pytest.mark.parametrize("kind", ["quality", "safety", "factuality"])
def test_the_flags_of_the_candidates_say_what_the_answer_says(world: World, kind: str) -> None:
    checked = 0
    for example in draw(world, kind, 300, seed=1):
        known = [flags for flags in example.flags if flags != UNKNOWN]
        first, second = (reduce(or_, (flags >> (FLAGS * part) & MASK for flags in known)) for part in (1, 2))
        ill_formed = [bool(of & ~(TRUE | FALSE | UNSAFE)) for of in (first, second)]
        if kind == "quality":
            expected = "tie" if ill_formed[0] == ill_formed[1] else "B" if ill_formed[0] else "A"
        elif UNKNOWN in example.flags or first & DEFECT:
            continue  # what a garbled sentence would have said is not known
        elif kind == "safety":
            expected = "unsafe" if first & UNSAFE else "safe"
        else:
            expected = FACTUALITY_ANSWERS[0.0 if first & FALSE else 1.0 if first & TRUE else 0.5]
        assert example.answer == expected, example.prompt
        checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("quality", {"A": 0.2, "B": 0.2, "tie": 0.1}),
        ("safety", {"safe": 0.3, "unsafe": 0.1}),
        ("factuality", {"none": 0.2, "possible": 0.02, "definite": 0.2}),
    ],
)
def test_no_answer_is_rare_enough_to_be_ignored(world: World, kind: str, least: dict[str, float]) -> None:
    answers = Counter(example.answer for example in draw(world, kind, 2000))
    assert set(answers) == set(least)
    for answer, share in least.items():
        assert answers[answer] / 2000 >= share, answers


def test_the_quality_label_turns_when_the_candidates_are_swapped(world: World) -> None:
    turned = {"A": "B", "B": "A", "tie": "tie"}
    seen = set()
    for seed in range(60):
        rng = Turning(seed)
        example = Examples(world, rng).quality()
        swapped = Examples(world, Turning(seed, turn=rng.draws)).quality()  # the last draw decides the order
        prefix, _, rest = example.prompt.partition(" <a> ")
        a, _, b = rest.removesuffix(" <answer>").partition(" <b> ")
        assert swapped.prompt == f"{prefix} <a> {b} <b> {a} <answer>"
        assert swapped.answer == turned[example.answer]
        seen.add(example.answer)
    assert seen == set(turned)


def test_a_rewrite_copies_a_flawless_suffix_and_states_nothing_false(world: World) -> None:
    oracle = Oracle(world)
    copies = changes = wrong = 0
    for example in draw(world, "rewrite", 1000):
        prefix, _, suffix = example.prompt.removeprefix("<rewrite> ").removesuffix(" <answer>").partition(" <a> ")
        better, _, end = example.answer.rpartition(" ")
        assert end == "<eos>"
        assert len(better.split()) == len(suffix.split())
        copies += better == suffix
        changes += better != suffix
        wrong += oracle.read(prefix, better).factuality == 0
    assert min(copies, changes) >= 200
    assert wrong <= 20


def test_the_same_generator_draws_the_same_examples(world: World) -> None:
    assert draw(world, "quality", 5) == draw(world, "quality", 5) != draw(world, "quality", 5, seed=1)
