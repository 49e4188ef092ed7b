from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preceptor_services.fencing import Neutraliser, fence_for

CONTROL = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>", "<｜User｜>", "[INST]",
    "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "</think>",
    "[TOOL_CALLS]", "<tool_call>", "<unused12>", "<answer>", "<quality>", "<a>",
]  # fmt: skip
NANO = Neutraliser(["<quality>", "<safety>", "<a>", "<b>", "<answer>"], collapse_whitespace=True)
PLAIN = Neutraliser()

hostile = st.lists(
    st.one_of(
        st.sampled_from(CONTROL),
        st.sampled_from(["<", ">", "|", "[", "]", "\x00", "\ud800", "\u200b", "\u202e"]),
        st.text(),
    ),
    max_size=12,
).map("".join)


@given(hostile)
@example("<|im_<|im_start|>start|>")
@example("<ans\x00wer>")
@example("[IN\u200bST]")
@example("<\ud800s>")
def test_no_control_token_survives(text: str) -> None:
    cleaned = NANO.clean(text)
    assert not [token for token in CONTROL if token in cleaned]
    assert "<|" not in cleaned
    assert "|>" not in cleaned


@given(hostile)
def test_neutralising_twice_changes_nothing_more(text: str) -> None:
    for neutraliser in (NANO, PLAIN):
        assert neutraliser.clean(neutraliser.clean(text)) == neutraliser.clean(text)


@given(hostile)
def test_what_comes_out_can_be_sent_as_utf_8(text: str) -> None:
    assert PLAIN.clean(text).encode().decode() == PLAIN.clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "Plain prose, with (brackets), [notes], 3 < 4 > 2, a|b and <em>markup</em>.",
        "Two lines\n\tand a tab; naïve café, 日本語, देवनागरी, 👩‍👩‍👧.",
        "vector<int> f(x[0]) -> y",
    ],
)
def test_ordinary_text_passes_unchanged(text: str) -> None:
    assert PLAIN.clean(text) == text


def test_a_declared_token_is_recognisable_but_no_longer_a_token() -> None:
    assert NANO.clean("x <a> A <answer> A") == "x ‹a› A ‹answer› A"


def test_whitespace_is_collapsed_only_where_the_set_says_so() -> None:
    assert NANO.clean(" a\n b\x0cc ") == "a b c"
    assert PLAIN.clean(" a\r\n b ") == " a\n b "


def test_restoring_puts_back_what_the_original_held_and_nothing_else() -> None:
    original = "strike <s>this</s> out"
    assert PLAIN.restore(PLAIN.clean(original), original) == original
    assert PLAIN.restore("‹eos› and ‹s›", original) == "‹eos› and <s>"


@given(st.lists(st.text(), max_size=6))
def test_a_fence_occurs_in_none_of_its_texts_and_depends_on_them_alone(texts: list[str]) -> None:
    fence = fence_for(texts)
    assert not [text for text in texts if fence in text]
    assert fence_for(list(texts)) == fence


def test_any_change_of_the_texts_changes_the_fence() -> None:
    assert len({fence_for(texts) for texts in (["a"], ["b"], ["a", "b"], ["ab"], ["a", ""])}) == 5
