"""Adaptive finds what all pairs would have found, at least as often as all pairs finds it again, for a quarter of the
calls. A small run of `preceptor bench schedules`, which has the figures."""

from __future__ import annotations

import importlib

import pytest

from preceptor_client.contract import Order, ScheduleName


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.30])
def test_adaptive_agrees_with_all_pairs_at_least_as_often_as_all_pairs_with_itself(
    rate: float,
) -> None:
    bench = importlib.import_module("benchmarks.schedules")
    adaptive = bench.Contender(ScheduleName.ADAPTIVE, Order.BOTH)
    figures = bench.measure(bench.Task("flips", rate, range(150), 16, (adaptive,)))[adaptive]
    assert figures.mean("calls_ratio") <= 0.25
    for name in ("best", "worst", "both"):
        assert figures.mean(f"{name}_margin") > 0
