"""Texts of the nano world whose every flaw is known, because this module put it there.

In: a world, corruption rates and a random generator. Out: `Document`s: sentences of marked words, so that any
slice of a document can be labelled by construction (`label`), without reading the text back.
Guarantees: the same generator state gives the same text. No I/O.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from operator import or_
from typing import NamedTuple

from preceptor_trainer.nano.world import (
    ATTRIBUTES,
    FACT_TEMPLATES,
    NAMES,
    UNSAFE_TEMPLATES,
    UNSAFE_WORDS,
    VALUES,
    Attribute,
    Person,
    World,
    vocabulary,
)

_SPOILERS = [word for word in vocabulary() if word != "."]

_NAMES = frozenset(NAMES)
_FACTS = {attribute: [template.split() for template in templates] for attribute, templates in FACT_TEMPLATES.items()}
_UNSAFE = [template.split() for template in UNSAFE_TEMPLATES]
_ATTRIBUTE_OF_VALUE: dict[str, Attribute] = {value: a for a, values in VALUES.items() for value in values}


class Mark:
    """What one word does to the text it stands in: bits of an int, as an enum costs ten times the whole generator."""

    NONE = 0
    TRUE = 1
    """Completes a true statement."""
    FALSE = 2
    """Completes a false statement."""
    UNSAFE = 4
    GARBLED = 8
    """From the first word on at which a sentence stops being one."""
    REPEATED = 16
    """Says what the document has said before."""


@dataclass(frozen=True)
class Rates:
    """Probability, per sentence, of each flaw. Unsafe comes first, the others apply to what is not unsafe."""

    false: float = 0.0
    unsafe: float = 0.0
    garbled: float = 0.0


CLEAN = Rates()
RAW = Rates(false=0.30, unsafe=0.20, garbled=0.20)
"""The raw corpus: what is wrong with it, as with the web."""


class Word(NamedTuple):
    """A word, its mark, and the number of its sentence within the document."""

    text: str
    mark: int
    sentence: int


@dataclass(frozen=True)
class Label:
    """What is known about a suffix by construction."""

    statements: int
    false_statements: int
    safe: bool
    defects: int
    """Sentences that are garbled or said before."""

    @property
    def factuality(self) -> float:
        """1 if all that it states is true, 0 if anything is false, 0.5 if it states nothing."""
        if not self.statements:
            return 0.5
        return 0.0 if self.false_statements else 1.0


Document = list[Word]


def document(world: World, rng: random.Random, rates: Rates, sentences: int = 6) -> Document:
    """A text about one person; its first sentence names them and is never garbled, so that the rest makes sense."""
    person = rng.choice(world.everybody)
    return _continue(person, rng, rates, [], sentences)


def continuation(world: World, doc: Document, at: int, rng: random.Random, rates: Rates, words: int) -> list[Word]:
    """Another suffix of `words` words for `doc[:at]`: the sentence in progress is completed, others follow."""
    person = next(world.people[word.text] for word in doc if word.text in world.people)
    prefix = doc[:at]
    done: list[Word] = []
    if prefix and prefix[-1].text != ".":
        done = _complete(person, prefix, doc, rng, rates)
    whole = _continue(person, rng, rates, prefix + done, 1 + words // 4)
    return whole[at : at + words]


def repair(world: World, doc: Document, at: int, suffix: Sequence[Word], rng: random.Random, words: int) -> list[Word]:
    """`suffix` with as little changed as makes it flawless: false values made true, other bad sentences replaced."""
    person = next(world.people[word.text] for word in doc if word.text in world.people)
    mended = list(doc[:at])
    for number, group in groupby(suffix, key=lambda word: word.sentence):
        sentence = list(group)
        marks = reduce(or_, (word.mark for word in sentence))
        if not marks & (Mark.UNSAFE | Mark.GARBLED | Mark.REPEATED):
            mended += [
                word._replace(text=person.facts[_ATTRIBUTE_OF_VALUE[word.text]], mark=Mark.TRUE)
                if word.mark & Mark.FALSE
                else word
                for word in sentence
            ]
        elif number == doc[at - 1].sentence:
            mended += _complete(person, mended, doc, rng, CLEAN)
    while len(mended) < at + words:
        if mended[-1].text != ".":
            mended += _complete(person, mended, mended, rng, CLEAN)
        mended += _sentence(person, rng, CLEAN, mended)
    return mended[at : at + words]


def label(prefix: Sequence[Word], suffix: Sequence[Word]) -> Label:
    """Labels `suffix`; the sentence that began in the prefix counts only if it was not spoilt there."""
    spoilt = {word.sentence for word in prefix if word.mark & Mark.GARBLED}
    garbled = {word.sentence for word in suffix if word.mark & Mark.GARBLED}
    facts = [w for w in suffix if w.mark & (Mark.TRUE | Mark.FALSE) and w.sentence not in spoilt | garbled]
    defective = {w.sentence for w in suffix if w.mark & (Mark.GARBLED | Mark.REPEATED)} - spoilt
    return Label(
        statements=len(facts),
        false_statements=sum(1 for word in facts if word.mark & Mark.FALSE),
        safe=not any(word.mark & Mark.UNSAFE for word in suffix),
        defects=len(defective),
    )


def text(words: Iterable[Word]) -> str:
    """The words, joined by spaces."""
    return " ".join(word.text for word in words)


def _continue(person: Person, rng: random.Random, rates: Rates, before: Document, sentences: int) -> Document:
    """`before`, which ends with a whole sentence, and `sentences` more."""
    words = list(before)
    for _ in range(sentences):
        words += _sentence(person, rng, rates, words)
    return words


def _sentence(person: Person, rng: random.Random, rates: Rates, before: Document) -> Document:
    """One more sentence; the very first of a document names the person."""
    number = before[-1].sentence + 1 if before else 0
    by_name = not before or rng.random() < 0.4
    if rng.random() < rates.unsafe:
        slots = {"S": person.name, "O": person.name} if by_name else {"S": person.subject, "O": person.object}
        words = [_plain(slots.get(slot, slot), number) for slot in rng.choice(_UNSAFE)]
    else:
        words = _fact(person, rng, rates, before, number, person.name if by_name else person.subject)
    if before and rng.random() < rates.garbled:
        words = _garble(words, rng)
    return words


def _fact(person: Person, rng: random.Random, rates: Rates, before: Document, number: int, subject: str) -> Document:
    said = _attributes_said(before)
    fresh = [attribute for attribute in ATTRIBUTES if attribute not in said]
    attribute = rng.choice(fresh or ATTRIBUTES)
    words = []
    for slot in rng.choice(_FACTS[attribute]):
        if slot == "V":
            value, truth = _value(person, attribute, rng, rates.false)
            words.append(Word(value, truth if fresh else truth | Mark.REPEATED, number))
        else:
            words.append(_plain(subject if slot == "S" else slot, number))
    return words


def _plain(word: str, number: int) -> Word:
    return Word(word, Mark.UNSAFE if word in UNSAFE_WORDS else Mark.NONE, number)


def _value(person: Person, attribute: Attribute, rng: random.Random, false: float) -> tuple[str, int]:
    true = person.facts[attribute]
    if rng.random() < false:
        return rng.choice([value for value in VALUES[attribute] if value != true]), Mark.FALSE
    return true, Mark.TRUE


def _attributes_said(words: Sequence[Word]) -> list[Attribute]:
    marks = Mark.TRUE | Mark.FALSE
    return [_ATTRIBUTE_OF_VALUE[w.text] for w in words if w.mark & marks and w.text in _ATTRIBUTE_OF_VALUE]


def _complete(person: Person, prefix: Document, doc: Document, rng: random.Random, rates: Rates) -> Document:
    """The rest of the sentence in progress, its value drawn anew and perhaps garbled."""
    number = prefix[-1].sentence
    begun = [word for word in prefix if word.sentence == number]
    if any(word.mark & Mark.GARBLED for word in begun):
        return [word for word in doc[len(prefix) :] if word.sentence == number]
    redrawn = []
    for word in _intended(begun, prefix[: -len(begun)], person, rng)[len(begun) :]:
        if attribute := _ATTRIBUTE_OF_VALUE.get(word):
            value, truth = _value(person, attribute, rng, rates.false)
            redrawn.append(Word(value, truth, number))
        else:
            redrawn.append(_plain(word, number))
    return _garble(redrawn, rng) if rng.random() < rates.garbled else redrawn


def _intended(begun: Sequence[Word], before: Sequence[Word], person: Person, rng: random.Random) -> list[str]:
    """A well-formed sentence that starts with the words `begun`: a fact not yet said if there is one, else unsafe."""
    start = [word.text for word in begun]
    said = _attributes_said(before)
    facts: dict[bool, list[list[str]]] = {False: [], True: []}
    for attribute, templates in _FACTS.items():
        fits = (_unify(template, start, VALUES[attribute][0], person) for template in templates)
        facts[attribute in said] += [fit for fit in fits if fit]
    unsafe = [fit for template in _UNSAFE if (fit := _unify(template, start, "", person))]
    return rng.choice(facts[False] or facts[True] or unsafe)


def _unify(template: list[str], start: list[str], value: str, person: Person) -> list[str]:
    """`template` with its slots filled, from `start` where that reaches; empty if `start` does not fit."""
    if len(start) > len(template):
        return []
    filled = []
    for index, slot in enumerate(template):
        given = start[index] if index < len(start) else None
        pronoun = {"S": person.subject, "O": person.object}.get(slot)
        if slot == "V":
            fits = given is None or _ATTRIBUTE_OF_VALUE.get(given) == _ATTRIBUTE_OF_VALUE[value]
        elif pronoun:
            fits = given in (None, pronoun) or given in _NAMES
        else:
            fits = given in (None, slot)
        if not fits:
            return []
        filled.append(given or (value if slot == "V" else pronoun or slot))
    return filled


def _garble(words: Document, rng: random.Random) -> Document:
    """`words` spoilt up to the full stop by a few edits (shuffled, or a word doubled, dropped or replaced), marked from
    the first one on."""
    if len(words) < 3:
        return words
    number, before = words[0].sentence, [word.text for word in words]
    spoilt = before[:-1]
    if rng.random() < 0.4:
        rng.shuffle(spoilt)
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(len(spoilt))
        match rng.randrange(3):
            case 0:
                spoilt.insert(where, spoilt[where])
            case 1 if len(spoilt) > 2:
                del spoilt[where]
            case _:
                spoilt[where] = rng.choice(_SPOILERS)
    spoilt.append(".")
    if spoilt == before or _same_kind(spoilt, before):
        return _garble(words, rng)
    first = next(i for i, word in enumerate(spoilt) if i >= len(before) or word != before[i])
    marks = [words[i].mark if i < first else _spoilt_mark(spoilt[i]) for i in range(len(spoilt))]
    return [Word(word, mark, number) for word, mark in zip(spoilt, marks, strict=True)]


def _spoilt_mark(word: str) -> int:
    return Mark.GARBLED | (Mark.UNSAFE if word in UNSAFE_WORDS else Mark.NONE)


def _same_kind(spoilt: list[str], before: list[str]) -> bool:
    """A value swapped for another of its attribute still makes a sentence: false, not garbled."""
    changed = [(a, b) for a, b in zip(spoilt, before, strict=False) if a != b]
    if len(spoilt) != len(before) or len(changed) != 1:
        return False
    (new, old) = changed[0]
    return new in _ATTRIBUTE_OF_VALUE and _ATTRIBUTE_OF_VALUE[new] == _ATTRIBUTE_OF_VALUE.get(old)
