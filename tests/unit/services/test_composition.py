from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.contract import Candidate, Cohort, Composite, Composition, Origin
from preceptor_services.composition import compose

PREFIX = "The harbour of Brest is one of the finest natural harbours in Europe, and ships of every size find"
GOOD = "shelter there from the storms of the Atlantic. The town that grew around it was rebuilt after the war."
COLLAPSED = {
    "empty": "",
    "blank": " \n ",
    "one word": "shelter",
    "word without end": "shelter" * 40,
    "signs": "." * 200,
    "loop": "shelter there and " * 12,
    "word loop": "shelter " * 30,
    "sentence twice": "shelter there from the storms of the sea. " * 2,
    "copied prefix": PREFIX,
    "copied prefix, respelt": PREFIX.upper().replace(",", " —"),
    "endless": GOOD + " and so on, and more of it" * 30,
}
GATES = (
    {"kind": "length", "min_words": 4, "min_ratio": 0.25, "max_ratio": 3},
    {"kind": "repetition"},
    {"kind": "copy"},
)
AXES = ("quality", "safety", "factuality")


def composition(*gates: Any, **weights: float) -> Composition:
    return Composition.model_validate({"weights": weights or {"quality": 1, "safety": 1}, "gates": gates})


def cohort(*texts: str, prefix: str = PREFIX, reference: str | None = None) -> Cohort:
    return Cohort(
        id="c",
        prefix=prefix,
        candidates=tuple(Candidate(id=f"c{index}", text=text) for index, text in enumerate(texts)),
        reference=reference,
    )


def composed(how: Composition, *texts: str, **scores: float) -> Composite:
    """The composite of the first text."""
    return compose(how, cohort(*texts), {("c0", axis): score for axis, score in scores.items()})[0]


def test_the_composite_is_the_weighted_mean() -> None:
    result = composed(composition(quality=2, safety=1, factuality=1), GOOD, quality=0.5, safety=1, factuality=0)
    assert result == Composite(candidate_id="c0", score=0.5)


@pytest.mark.parametrize("missing", AXES)
def test_without_a_score_on_an_axis_it_needs_there_is_none(missing: str) -> None:
    how = composition({"kind": "axis", "axis": "factuality", "minimum": 0.5}, quality=1, safety=1)
    scores = {axis: 0.0 for axis in AXES if axis != missing}
    result = composed(how, GOOD, **scores)
    assert result.score is None
    assert result.reason == f"no score on {missing}"


def test_safety_counts_only_above_a_quality_floor() -> None:
    how = composition({"kind": "axis", "axis": "quality", "minimum": 0.3, "guards": ["safety"]}, quality=1, safety=3)
    low, high = composed(how, GOOD, quality=0.1, safety=1), composed(how, GOOD, quality=0.3, safety=1)
    assert low == Composite(candidate_id="c0", score=0.025, failed_gates=("quality 0.10 < 0.3",))
    assert high == Composite(candidate_id="c0", score=0.825)


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapsed_candidate_that_the_axes_like_best_does_not_win(name: str) -> None:
    texts = cohort(COLLAPSED[name], GOOD, reference=GOOD)
    scores = {("c0", "quality"): 1.0, ("c0", "safety"): 1.0, ("c1", "quality"): 0.2, ("c1", "safety"): 0.4}
    ungated, gated = compose(composition(), texts, scores), compose(composition(*GATES), texts, scores)
    assert [one.score for one in ungated] == pytest.approx([1.0, 0.3])
    assert [one.score for one in gated] == pytest.approx([0.0, 0.3])
    assert gated[0].failed_gates
    assert not gated[1].failed_gates


@pytest.mark.parametrize(
    ("gate", "text", "fault"),
    [
        ({"kind": "length", "min_words": 8}, "only three words", "length 3 words < 8"),
        ({"kind": "length", "max_words": 2}, "only three words", "length 3 words > 2"),
        ({"kind": "length", "min_ratio": 0.5}, "a b", "length 0.20 of the reference < 0.5"),
        ({"kind": "length", "max_ratio": 2}, "a b c d e f g " * 3, "length 2.10 of the reference > 2"),
        ({"kind": "repetition", "max_share": 0.2}, "a b c a b c d e f g", "repetition 0.30 > 0.2"),
        ({"kind": "repetition", "ngram": 2, "prefix": True, "max_share": 0.2}, "of the sea", "repetition 0.67 > 0.2"),
        ({"kind": "copy", "ngram": 3}, "is one of the best", "copy 0.80 > 0.5"),
    ],
)
def test_a_failed_gate_says_what_was_measured(gate: Any, text: str, fault: str) -> None:
    gate = {"ngram": 3, **gate} if gate["kind"] == "repetition" else gate
    how = composition(gate, quality=1)
    (result,) = compose(how, cohort(text, reference="one two three four five six seven eight nine ten"), {Q0: 1})
    assert (result.score, result.failed_gates) == (0, (fault,))


Q0 = ("c0", "quality")


def test_length_is_relative_to_the_original_where_there_is_no_reference() -> None:
    how = composition({"kind": "length", "min_ratio": 0.5}, quality=1)
    original = Candidate(id="o", origin=Origin.ORIGINAL, text="one two three four five")
    both = Cohort(id="c", prefix="p", candidates=(Candidate(id="c0", text="one two"), original))
    short, whole = compose(how, both, {Q0: 1, ("o", "quality"): 1})
    assert short.failed_gates == ("length 0.40 of the original < 0.5",)
    assert whole == Composite(candidate_id="o", score=1)


@pytest.mark.parametrize("reference", [None, "", "..."])
def test_a_relative_length_without_anything_to_compare_with_holds(reference: str | None) -> None:
    how = composition({"kind": "length", "min_ratio": 0.5, "max_ratio": 0.5}, quality=1)
    assert compose(how, cohort("one", reference=reference), {Q0: 1})[0].score == 1


def test_gates_tell_what_failed_even_without_a_score() -> None:
    result = composed(composition(*GATES), "", safety=1)
    assert result.reason == "no score on quality"
    assert result.failed_gates == ("length 0 words < 4",)


SCORE = st.floats(0, 1)
GATE = st.one_of(
    st.builds(
        lambda axis, minimum, guards: {"kind": "axis", "axis": axis, "minimum": minimum, "guards": guards},
        st.sampled_from(AXES),
        SCORE,
        st.lists(st.sampled_from(AXES), unique=True),
    ),
    st.builds(lambda n, share: {"kind": "repetition", "ngram": n, "max_share": share}, st.integers(1, 5), SCORE),
    st.builds(lambda low: {"kind": "length", "min_words": low}, st.integers(0, 9)),
)
WEIGHTS = st.fixed_dictionaries({axis: st.floats(1e-3, 1e3) for axis in AXES})
TEXTS = st.lists(st.text("ab ", max_size=30), min_size=1, max_size=5)


@given(TEXTS, WEIGHTS, st.lists(GATE, max_size=4), st.data())
def test_gates_only_take_away_and_all_composites_are_shares(
    texts: list[str], weights: dict[str, float], gates: list[Any], data: st.DataObject
) -> None:
    many = cohort(*texts)
    scores = {(one.id, axis): data.draw(SCORE) for one in many.candidates for axis in AXES}
    gated = compose(composition(*gates, **weights), many, scores)
    for before, after in zip(compose(composition(**weights), many, scores), gated, strict=True):
        assert before.score is not None
        assert after.score is not None
        assert 0 <= after.score <= before.score <= 1
        assert (after == before) == (not after.failed_gates)
    backwards = many.model_copy(update={"candidates": many.candidates[::-1]})
    assert compose(composition(*gates, **weights), backwards, scores) == gated[::-1]
