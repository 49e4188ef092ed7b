from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.evaluation.statistics import mean, relative_gain, win_rate

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=50)


def test_the_mean_of_a_known_sample_and_its_interval_agree_with_the_normal_approximation() -> None:
    estimate = mean([0.0, 1.0] * 200)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)


@given(SCORES)
def test_an_interval_holds_its_estimate_between_the_extremes(scores: list[float]) -> None:
    estimate = mean(scores)
    assert min(scores) - 1e-9 <= estimate.low <= estimate.high <= max(scores) + 1e-9


def test_a_tie_is_half_a_win() -> None:
    assert win_rate([1, 1, 0, 0], [1, 0, 1, 0]).value == 0.5
    assert win_rate([1, 1], [0, 0]).value == 1.0


@given(SCORES)
def test_win_rates_of_the_two_sides_add_up_to_one(scores: list[float]) -> None:
    rivals = scores[::-1]
    assert win_rate(scores, rivals).value + win_rate(rivals, scores).value == pytest.approx(1)


def test_the_relative_gain_is_the_ratio_of_the_means() -> None:
    assert relative_gain([0.9, 0.9], [0.6, 0.6]).value == pytest.approx(0.5)


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        mean([])
    with pytest.raises(ValueError, match="cannot be paired"):
        win_rate([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="mean is 0"):
        relative_gain([1.0], [0.0])
