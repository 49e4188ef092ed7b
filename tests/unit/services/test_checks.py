from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.checks import copied, kept, ngrams, repetition, units, words

SENTENCES = st.lists(st.sampled_from("the a cat dog sat ran here there".split()), min_size=2, max_size=20)
NGRAM = st.integers(1, 8)


def grams(text: str, n: int) -> frozenset[tuple[str, ...]]:
    return frozenset(ngrams(units(text), n))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t — stop, “now”!", ["dont", "stop", "now"]),
        ("well-known, x_y and 3.5", ["well", "known", "x", "y", "and", "3", "5"]),
        ("中文测试 abc", ["中", "文", "测", "试", "abc"]),
        ("中文abc", ["中", "文", "abc"]),
        ("ひらがな", ["ひ", "ら", "が", "な"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("ｆｕｌｌ width", ["full", "width"]),
        ("ze\u200bro wid\u00adth", ["zero", "width"]),
        ("!!! … ❤️ 😀", []),
        ("", []),
        (" \n\t\x00", []),
    ],
)
def test_words_are_told_apart_in_any_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a a a a",
        "a, a; A! a? a",
        "the cat sat. The cat sat. The cat sat.",
        "no\u200b no no\u00ad no n\u200bo",
        "ha" * 40,
        "paris" * 20,
        "paris . . . . . . . . .",
        "good!!!!!!!!!!!!!!!!!!!!",
        "yes 😀😀😀😀😀😀😀😀😀",
        ". , . , . , . , . ,",
        "我很高兴我很高兴我很高兴",
        "สวัสดีสวัสดีสวัสดี",
        "\n".join(["| --- | --- |"] * 8),
    ],
)
def test_degenerate_loops_are_mostly_repetition(text: str) -> None:
    assert repetition(units(text), 4) > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "No, no!",
        "the cat the",
        "It was the best of times, it was the worst of times.",
        "He said... and then... nothing.",
        "“Why?” she asked. “Because,” he said. “Just because.”",
        "The quick brown fox jumps over the lazy dog while the old cat sleeps by the fire.",
        "他昨天去了北京，今天又回到了上海。",
        "https://example.org/a/very/long/path?with=some&query=and#anchor",
    ],
)
def test_ordinary_text_is_hardly_repetition(text: str) -> None:
    assert repetition(units(text), 4) <= 0.4


@given(SENTENCES, st.integers(2, 5), NGRAM)
def test_a_text_said_over_and_over_repeats_all_but_its_first_time(text: list[str], times: int, n: int) -> None:
    assert repetition(text * times, n) >= (times - 1) / times


@given(st.text(), st.text(), NGRAM)
def test_shares_are_shares_of_any_text(text: str, prefix: str, n: int) -> None:
    said = grams(prefix, n)
    assert 0 <= repetition(units(text), n) <= repetition(units(text), n, said) <= 1
    assert 0 <= copied(units(text), n, said) <= repetition(units(text), n, said)


@given(SENTENCES, SENTENCES, SENTENCES, st.integers(2, 8))
def test_what_stands_in_the_prefix_is_copied(before: list[str], text: list[str], after: list[str], n: int) -> None:
    given_grams = frozenset(ngrams(before + text + after, n))
    assert copied(text, n, given_grams) == (1.0 if len(text) >= n else 0.0)


@given(SENTENCES, NGRAM)
def test_nothing_is_copied_from_other_words(text: list[str], n: int) -> None:
    assert copied(text, n, grams("nothing of this occurs in it at all, not one word", n)) == 0.0


@given(SENTENCES, st.sampled_from([" ", ", ", " – ", ".\n", "! "]), NGRAM)
def test_case_and_punctuation_hide_nothing(text: list[str], separator: str, n: int) -> None:
    written = separator.join(word.title() if place % 2 else word.upper() for place, word in enumerate(text))
    assert repetition(units(written), n) == repetition(text, n)


def test_a_statement_of_the_prefix_is_repetition_only_with_it() -> None:
    text, prefix = units("she is good at chess . she lives in paris ."), "alice lives in paris . she owns a dog ."
    assert repetition(text, 2) == 0
    assert repetition(text, 2, grams(prefix, 2)) == pytest.approx(3 / 9)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a x c y", "a b c d", 0.5),
        ("d c b a", "a b c d", 0.25),
        ("b d a c", "a b c d", 0.5),
        ("x y", "a b", 0.0),
        ("", "a b", 0.0),
        ("a a a a", "a a", 1.0),
        ("a", "", 1.0),
    ],
)
def test_kept_is_what_stays_in_order(one: str, other: str, share: float) -> None:
    assert kept(one.split(), other.split()) == share


@given(SENTENCES, SENTENCES)
def test_kept_is_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, first in enumerate(one):
        for j, second in enumerate(other):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if first == second else max(lengths[i][j + 1], lengths[i + 1][j])
    assert kept(one, other) == pytest.approx(lengths[-1][-1] / len(other))
