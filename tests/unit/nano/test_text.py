from __future__ import annotations

import random
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.nano.oracle import Oracle
from preceptor_trainer.nano.text import (
    CLEAN,
    RAW,
    Document,
    Mark,
    Rates,
    continuation,
    document,
    label,
    repair,
    text,
)
from preceptor_trainer.nano.world import UNSAFE_WORDS, VALUES, World, vocabulary

SEEDS = st.integers(0, 2**32)
RATES = st.builds(Rates, *[st.sampled_from([0.0, 0.1, 0.3, 0.8])] * 3)
WORDS = 16

WORLD = World.generate()
KNOWN = set(vocabulary())
ALL_VALUES = {value for values in VALUES.values() for value in values}
FLAWS = Mark.FALSE | Mark.UNSAFE | Mark.GARBLED | Mark.REPEATED


def drawn(seed: int, rates: Rates) -> tuple[Document, int, random.Random]:
    """A document, a place to split it, and the generator that goes on from there."""
    rng = random.Random(seed)
    doc = document(WORLD, rng, rates, sentences=8)
    return doc, rng.randint(4, len(doc) - 4), rng


@given(SEEDS, RATES)
def test_a_document_is_decided_by_its_generator_and_made_of_the_vocabulary(seed: int, rates: Rates) -> None:
    doc, at, _ = drawn(seed, rates)
    assert (doc, at) == drawn(seed, rates)[:2]
    assert {word.text for word in doc} <= KNOWN
    assert text(doc).split() == [word.text for word in doc]


@given(SEEDS, RATES)
def test_sentences_are_numbered_in_order_and_end_with_a_full_stop(seed: int, rates: Rates) -> None:
    doc, _, _ = drawn(seed, rates)
    sentences = [(number, list(words)) for number, words in groupby(doc, key=lambda word: word.sentence)]
    assert [number for number, _ in sentences] == list(range(8))
    for _, words in sentences:
        assert [word.text for word in words].index(".") == len(words) - 1


@given(SEEDS, RATES)
def test_every_flaw_is_marked_where_it_stands(seed: int, rates: Rates) -> None:
    doc, _, _ = drawn(seed, rates)
    person = next(WORLD.people[word.text] for word in doc if word.text in WORLD.people)
    facts = set(person.facts.values())
    for word in doc:
        assert bool(word.mark & Mark.UNSAFE) == (word.text in UNSAFE_WORDS)
        if not word.mark & Mark.GARBLED:
            assert bool(word.mark & (Mark.TRUE | Mark.FALSE)) == (word.text in ALL_VALUES)
            assert not word.mark & Mark.TRUE or word.text in facts
    assert not any(word.mark & Mark.GARBLED for word in doc if word.sentence == 0)


@given(SEEDS)
def test_a_clean_document_states_something_true_in_every_sentence_and_repeats_only_when_all_is_said(seed: int) -> None:
    doc, _, _ = drawn(seed, CLEAN)
    marks = [word.mark for word in doc if word.mark]
    assert marks == [Mark.TRUE] * 6 + [Mark.TRUE | Mark.REPEATED] * 2


@pytest.mark.parametrize(
    ("rates", "mark"),
    [(Rates(false=1), Mark.FALSE), (Rates(unsafe=1), Mark.UNSAFE), (Rates(garbled=1), Mark.GARBLED)],
)
@given(seed=SEEDS)
def test_a_rate_of_one_spoils_every_sentence_that_may_be_spoilt(rates: Rates, mark: int, seed: int) -> None:
    doc, _, _ = drawn(seed, rates)
    spoilt = {word.sentence for word in doc if word.mark & mark}
    assert spoilt >= set(range(1, 8))


@given(SEEDS, RATES, RATES)
def test_a_continuation_has_its_length_and_keeps_the_sentence_in_progress(
    seed: int, rates: Rates, of_suffix: Rates
) -> None:
    doc, at, rng = drawn(seed, rates)
    suffix = continuation(WORLD, doc, at, rng, of_suffix, WORDS)
    assert len(suffix) == WORDS
    assert {word.text for word in suffix} <= KNOWN
    open_sentence = doc[at - 1].text != "."
    assert suffix[0].sentence == doc[at - 1].sentence + (not open_sentence)
    for before, after in pairwise(suffix):
        assert after.sentence == before.sentence + (before.text == ".")


@given(SEEDS)
def test_a_clean_continuation_of_a_clean_document_is_true_and_well_formed(seed: int) -> None:
    doc, at, rng = drawn(seed, CLEAN)
    suffix = continuation(WORLD, doc, at, rng, CLEAN, WORDS)
    said = label(doc[:at], suffix)
    assert (said.false_statements, said.safe) == (0, True)
    assert not any(word.mark & Mark.GARBLED for word in suffix)


@given(SEEDS, RATES, RATES)
def test_a_repair_is_flawless_but_for_unsafe_sentences_already_begun(seed: int, rates: Rates, of_suffix: Rates) -> None:
    rng = random.Random(seed)
    doc = document(WORLD, rng, rates, sentences=2)
    at = rng.randint(4, len(doc))
    suffix = continuation(WORLD, doc, at, rng, of_suffix, WORDS)
    mended = repair(WORLD, doc, at, suffix, rng, WORDS)
    assert len(mended) == WORDS
    said = label(doc[:at], mended)
    assert (said.false_statements, said.defects) == (0, 0)
    # `someone must` can only be completed one way, whether it ends the prefix or the suffix.
    begun = {doc[at - 1].sentence, suffix[-1].sentence}
    assert {word.sentence for word in mended if word.mark & Mark.UNSAFE} <= begun


@given(SEEDS, RATES)
def test_a_repair_leaves_a_flawless_suffix_as_it_is(seed: int, rates: Rates) -> None:
    doc, at, rng = drawn(seed, rates)
    suffix = continuation(WORLD, doc, at, rng, rates, WORDS)
    if not any(word.mark & FLAWS for word in suffix):
        assert repair(WORLD, doc, at, suffix, rng, WORDS) == suffix


def test_labels_by_construction_agree_with_the_oracle(world: World) -> None:
    """Two readings of the same suffixes that share no code: what was put there, and what is written there."""
    oracle, rng = Oracle(world), random.Random(0)
    agreed = {"factuality": 0, "safety": 0, "quality": 0}
    count = 3000
    for _ in range(count):
        doc = document(world, rng, rng.choice([RAW, CLEAN]))
        at = rng.randint(8, len(doc) - WORDS)
        rates = rng.choice([CLEAN, RAW, Rates(false=0.5, unsafe=0.3, garbled=0.3)])
        suffix = continuation(world, doc, at, rng, rates, WORDS)
        made, read = label(doc[:at], suffix), oracle.read(text(doc[:at]), text(suffix))
        agreed["factuality"] += made.factuality == read.factuality
        agreed["safety"] += made.safe == bool(read.safety)
        agreed["quality"] += (made.defects == 0) == (read.quality == 1 and read.repetition == 0)
    assert {axis: right / count >= 0.98 for axis, right in agreed.items()} == dict.fromkeys(agreed, True), agreed
