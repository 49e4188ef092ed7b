from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.growth_parts.curves import Curve, linear_and_square
from benchmarks.growth_parts.memory import peak_bytes
from benchmarks.growth_parts.plot import save_plot
from benchmarks.measuring.result import Table


def test_the_exponent_of_a_power_is_found_and_its_error_is_that_of_the_scatter() -> None:
    sizes = (1, 2, 4, 8, 16)
    exact = Curve("p", "n", "s", sizes, [3 * size**1.5 for size in sizes])
    scattered = Curve("p", "n", "s", sizes, [3 * size**1.5 * (1.2 if size in (2, 16) else 0.9) for size in sizes])
    assert exact.fit == pytest.approx((1.5, 0.0), abs=1e-9)
    assert exact.last == pytest.approx(1.5)
    assert abs(scattered.fit[0] - 1.5) < 3 * scattered.fit[1]


def test_what_grows_by_the_square_is_told_from_what_grows_by_the_size() -> None:
    sizes = (10, 20, 40, 80)
    found = linear_and_square(sizes, [5 + 2 * size + 0.25 * size**2 for size in sizes])
    assert found == pytest.approx((5, 2, 0.25))


def test_the_peak_holds_what_was_freed_before_the_end() -> None:
    def call() -> float:
        return float(np.ones(4_000_000).sum())

    assert 30e6 < peak_bytes(call) < 45e6


def test_a_tiny_run_has_goals_tables_and_a_picture_that_is_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth.main(["--smallest", "--rounds", "1", "--parts", "schedules,queue,judges", "--json"])
    result = json.loads(capsys.readouterr().out)
    curves = result["curves"]
    assert {curve["unit"] for curve in curves} == {"s", "MB", "calls", "cohorts/s"}
    assert all(min(curve["values"]) > 0 for curve in curves)
    assert len(result["goals"]) == sum(curve["wanted"] is not None for curve in curves)
    calls = {curve["part"]: curve["values"] for curve in curves if curve["unit"] == "calls"}
    assert calls["schedule all_pairs"] == [2, 12, 56]
    assert all(isinstance(table, Table) and table.rows for table in growth.tables(result))
    pictures = [tmp_path / name for name in ("one.svg", "other.svg")]
    for picture in pictures:
        save_plot(curves, picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_a_part_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--parts", "everything"])
    assert "there is no everything" in capsys.readouterr().err
