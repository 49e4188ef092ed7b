"""Where a thought ends, and which are malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.thoughts import ThoughtFormat, thought_format
from tiny_policy import word_tokenizer

OPEN, CLOSE = 1, 2
FORMAT = ThoughtFormat(open=OPEN, close=CLOSE, limit=6, suffix=3)
WORDS = st.integers(3, 9)


@given(thought=st.lists(WORDS, min_size=1, max_size=4), rest=st.lists(WORDS, max_size=8))
def test_what_was_put_in_front_is_split_off_again(thought: list[int], rest: list[int]) -> None:
    ids = FORMAT.put(thought, rest)
    assert ids is not None
    split = FORMAT.split(ids)
    assert split == len(thought) + 2
    assert ids[split:] == tuple(rest)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_a_thought_is_well_formed_or_malformed_and_never_reaches_beyond_its_bound(ids: list[int]) -> None:
    split = FORMAT.split(ids)
    if split is None:
        return
    assert 2 <= split <= FORMAT.limit
    assert (ids[0], ids[split - 1]) == (OPEN, CLOSE)
    assert ids[: split + FORMAT.suffix].count(OPEN) == ids[: split + FORMAT.suffix].count(CLOSE) == 1


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [OPEN],
        [5, OPEN, 5, CLOSE, 7],
        [OPEN, 5, 5, 5, 5, 5, 5],
        [OPEN, 5, 5, 5, 5, 5, CLOSE, 7],
        [CLOSE, 5, OPEN],
        [OPEN, OPEN, CLOSE, 7],
        [OPEN, 5, CLOSE, 7, CLOSE],
        [OPEN, 5, CLOSE, OPEN, 5, CLOSE, 7],
    ],
    ids=[
        "nothing",
        "only opened",
        "begins late",
        "not closed",
        "closed too late",
        "the wrong way round",
        "opened twice",
        "closed twice",
        "two of them",
    ],
)
def test_malformed(ids: list[int]) -> None:
    assert FORMAT.split(ids) is None


def test_what_lies_beyond_the_suffix_does_not_count() -> None:
    assert FORMAT.split([OPEN, 5, CLOSE, 7, 7, 7, CLOSE]) == 3


@pytest.mark.parametrize("thought", [[], [5] * 5, [5, CLOSE], [OPEN]])
def test_a_thought_that_would_be_malformed_is_not_put_anywhere(thought: list[int]) -> None:
    assert FORMAT.put(thought, [7]) is None


def config(**thoughts: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "out": Path("out"),
            "steps": 1,
            "model": {"path": "p"},
            "data": {"path": "d", "suffix_tokens": 5},
            "pool": {"original": False, "rollouts": 2},
            "thoughts": thoughts or None,
        }
    )


def test_delimiters_are_tokens_of_the_policy() -> None:
    codec = Codec(word_tokenizer())
    assert thought_format(config(), codec) is None
    format = thought_format(config(open="w2", close="w3", max_tokens=7), codec)
    assert format == ThoughtFormat(open=2, close=3, limit=7, suffix=5)
    for wrong, key in [({"open": "w2 w4", "close": "w3"}, "open"), ({"open": "w2", "close": "</thought>"}, "close")]:
        with pytest.raises(TrainError, match=rf"thoughts\.{key} .* is not one token of the policy's tokenizer"):
            thought_format(config(**wrong), codec)


def test_a_candidate_has_room_for_a_thought_and_a_suffix() -> None:
    assert config().continuation_tokens == 5
    assert config(max_tokens=7).continuation_tokens == 12
