"""Labelled examples for the nano teacher: questions with the answer that is right by construction.

In: a world and a random generator. Out: `Example`s (prompt, answer, flags for each word of the prompt).
Guarantees: labels come from how a text was made, never from the oracle or a model. No I/O.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from preceptor_trainer.nano import prompts
from preceptor_trainer.nano.text import (
    CLEAN,
    RAW,
    Label,
    Mark,
    Rates,
    Word,
    continuation,
    document,
    label,
    repair,
    text,
)
from preceptor_trainer.nano.world import World

PREFIX_WORDS = 24
MIN_PREFIX_WORDS = 8
SUFFIX_WORDS = 16

_EVERY_FLAW = Rates(false=0.25, unsafe=0.12, garbled=0.15)
_ONE_FLAW = Rates(false=0.12, unsafe=0.05, garbled=0.10)
_RATES = (CLEAN, RAW, RAW, _EVERY_FLAW, _ONE_FLAW, _ONE_FLAW)
"""What the candidates are like: from rollouts of a raw model to those of a nearly perfect one."""


TRUE, FALSE, UNSAFE, DEFECT = 1, 2, 4, 8
"""What a word of a prompt is known to do; `DEFECT` stands at the first bad word of a bad sentence."""
UNKNOWN = -1
"""After its first bad word, nobody can say which other words of a sentence are wrong."""
FLAGS = 4
PARTS = 3
"""Prefix, first and second candidate: part p has its flags shifted by p * FLAGS bits."""


@dataclass(frozen=True)
class Example:
    """`flags[i]` are the bits of the prompt's i-th word."""

    prompt: str
    answer: str
    flags: list[int]


@dataclass(frozen=True)
class _Scene:
    """A prefix with the original suffix and the document they come from."""

    doc: list[Word]
    at: int

    @property
    def prefix(self) -> list[Word]:
        return self.doc[max(0, self.at - PREFIX_WORDS) : self.at]

    @property
    def original(self) -> list[Word]:
        return self.doc[self.at : self.at + SUFFIX_WORDS]


class Examples:
    """Draws examples; each call advances the generator."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng

    def quality(self) -> Example:
        """Two candidates; a flawless one is better than a flawed one, anything else ties."""
        scene = self._scene()
        a, b = self._candidate(scene), self._candidate(scene)
        if not self._label(scene, a).defects and not self._label(scene, b).defects:
            a = self._candidate(scene, _EVERY_FLAW)
        if self._rng.random() < 0.5:
            a, b = b, a
        a_is_flawed, b_is_flawed = (self._label(scene, candidate).defects > 0 for candidate in (a, b))
        answer = "tie" if a_is_flawed == b_is_flawed else "B" if a_is_flawed else "A"
        flags = _flags(scene, a, b)
        return Example(prompts.quality(text(scene.prefix), text(a), text(b)), answer, flags)

    def safety(self) -> Example:
        """One candidate: safe or unsafe."""
        scene = self._scene()
        candidate = self._candidate(scene)
        answer = "safe" if self._label(scene, candidate).safe else "unsafe"
        return Example(prompts.safety(text(candidate)), answer, [0, *_part(scene, candidate, 1), 0])

    def factuality(self) -> Example:
        """One candidate: what it states is true, nothing is stated, or something is false."""
        scene = self._scene()
        candidate = self._candidate(scene)
        answer = prompts.FACTUALITY_ANSWERS[self._label(scene, candidate).factuality]
        flags = _flags(scene, candidate)
        return Example(prompts.factuality(text(scene.prefix), text(candidate)), answer, flags)

    def rewrite(self) -> Example:
        """A suffix; the answer is the suffix itself if it is flawless, a flawless one otherwise."""
        scene = self._scene()
        suffix = self._candidate(scene)
        verdict = self._label(scene, suffix)
        good = verdict.safe and not verdict.defects and not verdict.false_statements
        better = suffix if good else repair(self._world, scene.doc, scene.at, suffix, self._rng, SUFFIX_WORDS)
        flags = _flags(scene, suffix)
        return Example(prompts.rewrite(text(scene.prefix), text(suffix)), text(better) + " <eos>", flags)

    def _scene(self) -> _Scene:
        doc = document(self._world, self._rng, self._rng.choice((RAW, RAW, CLEAN)))
        return _Scene(doc, self._rng.randint(MIN_PREFIX_WORDS, len(doc) - SUFFIX_WORDS))

    def _candidate(self, scene: _Scene, rates: Rates | None = None) -> list[Word]:
        if rates is None and self._rng.random() < 0.2:
            return scene.original
        rates = rates or self._rng.choice(_RATES)
        return continuation(self._world, scene.doc, scene.at, self._rng, rates, SUFFIX_WORDS)

    def _label(self, scene: _Scene, candidate: list[Word]) -> Label:
        return label(scene.doc[: scene.at], candidate)


def _flags(scene: _Scene, *candidates: list[Word]) -> list[int]:
    """The flags of a prompt of the form `<axis> prefix <a> candidate [<b> candidate] <answer>`."""
    flags = [0, *_part(scene, scene.prefix, 0), 0]
    for number, candidate in enumerate(candidates, start=1):
        flags += [*_part(scene, candidate, number), 0]
    return flags


def _part(scene: _Scene, words: list[Word], part: int) -> list[int]:
    """`part` is 0 for the prefix, 1 and 2 for the candidates: each has flags of its own."""
    spoilt = {word.sentence for word in scene.prefix if word.mark & Mark.GARBLED} if part else set()
    defective: set[int] = set()
    flags = []
    for word in words:
        if word.sentence in spoilt:
            flag = word.mark & Mark.UNSAFE and UNSAFE
        elif word.sentence in defective:
            flag = UNKNOWN
        else:
            flag = (word.mark & Mark.TRUE and TRUE) | (word.mark & Mark.FALSE and FALSE)
            flag |= word.mark & Mark.UNSAFE and UNSAFE
            if word.mark & (Mark.GARBLED | Mark.REPEATED):
                defective.add(word.sentence)
                flag |= DEFECT
        flags.append(flag if flag == UNKNOWN else flag << (FLAGS * part))
    return flags
