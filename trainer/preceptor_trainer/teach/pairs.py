"""Pairs of suffixes of which one is better by construction. Pure but for the random generator.

    as_is      a suffix, and the same corrupted
    good_cut   the suffix broken off inside a sentence, the corrupted one made to feel complete
    bad_cut    the other way round

Untrained judges prefer what feels complete. The last two ask for it: a judge without that bias errs as often on one as
on the other. What is cut and what is complete is the same in both, so that neither says which text is better.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from preceptor_trainer.teach.corruption import Kind, broken_off, completed, corrupt
from preceptor_trainer.teach.material import Passage

Ending = Literal["as_is", "good_cut", "bad_cut"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@dataclass(frozen=True)
class Pair:
    """Two suffixes of one prefix."""

    prefix: str
    good: str
    bad: str
    kind: Kind
    ending: Ending


def make_pairs(
    passage: Passage, donor: str, rng: random.Random, kinds: Sequence[Kind], endings: Sequence[Ending] = ENDINGS
) -> list[Pair]:
    """One for each of `endings`, all with the same corruption; none if the suffix cannot be corrupted."""
    if (corrupted := corrupt(passage.suffix, donor, rng, kinds)) is None:
        return []
    kind, bad = corrupted
    pairs = []
    for ending in endings:
        match ending:
            case "as_is":
                texts = passage.suffix, bad
            case "good_cut":
                texts = broken_off(passage.suffix, rng), completed(bad)
            case "bad_cut":
                texts = completed(passage.suffix), broken_off(bad, rng)
        pairs.append(Pair(passage.prefix, *texts, kind, ending))
    return pairs


def donors(passages: Sequence[Passage]) -> list[str]:
    """For each passage another one's suffix."""
    return [passages[place - 1].suffix for place in range(len(passages))]
