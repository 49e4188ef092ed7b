from __future__ import annotations

import random

from preceptor_trainer.teach.corruption import KINDS, ends_whole
from preceptor_trainer.teach.material import Passage
from preceptor_trainer.teach.pairs import donors, make_pairs

SUFFIX = "went down to the harbour. There she saw the ship of her uncle. It had"
DONOR = "is made of milk and salt. After two weeks it is turned over and washed."


def test_the_three_pairs_of_a_passage_share_a_corruption_and_differ_in_how_they_end() -> None:
    for seed in range(30):
        as_is, good_cut, bad_cut = make_pairs(Passage("Anna", SUFFIX), DONOR, random.Random(seed), KINDS)
        assert as_is.good == SUFFIX
        assert len({pair.kind for pair in (as_is, good_cut, bad_cut)}) == 1
        assert not ends_whole(good_cut.good)
        assert ends_whole(good_cut.bad)
        assert ends_whole(bad_cut.good)
        assert not ends_whole(bad_cut.bad)


def test_a_suffix_that_cannot_be_corrupted_gives_no_pair() -> None:
    assert make_pairs(Passage("Anna", "too short"), DONOR, random.Random(0), KINDS) == []


def test_no_passage_is_its_own_donor() -> None:
    passages = [Passage("p", str(number)) for number in range(3)]
    assert all(donor != passage.suffix for donor, passage in zip(donors(passages), passages, strict=True))
