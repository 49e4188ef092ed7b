"""The queue's benchmark at a tiny size: every side does the work it says, and the page can be made of the result."""

from __future__ import annotations

from benchmarks.queue import measure, tables


def test_every_side_brings_all_cohorts_there_and_back_and_is_accounted_for() -> None:
    figures = measure(("quality", "safety"), cohorts=100, peer_cohorts=0, rounds=1, environment=None)
    assert set(figures["sides"]) == {"queue", "worker", "redis"}
    for side in figures["sides"].values():
        assert side["cohorts_a_round"] == 100
        assert side["cohorts_per_s"] > 0
        assert set(side["cpu_us"]) == {"producer", "worker", "redis"}
    assert figures["task_bytes"] > 4_000
    rates, parts = tables(figures)
    assert [row[0] for row in rates.rows] == ["queue", "queue, through the worker", "redis-py"]
    assert all(len(row) == len(rates.columns) for row in rates.rows)
    assert all(len(row) == len(parts.columns) for row in parts.rows)
