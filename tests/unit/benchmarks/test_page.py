"""docs/benchmarks.md, made of results."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import growth
from benchmarks.growth_parts.curves import Curve

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmarks_page.py"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a folder of results and a page of its own."""
    spec = importlib.util.spec_from_file_location("benchmarks_page", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    curve = Curve("queue: status", "cohorts waiting", "s", (10, 100), (0.001, 0.01))
    result = {
        "curves": [curve.plain()],
        "goals": [{"figure": "exponent", "measured": 1.0, "relation": "<=", "bound": 1.05, "met": True}],
        "measured": {"at": "2026-01-01", "commit": "abc", "cpu": "a CPU", "cpus": 2, "memory_gb": 8},
        "versions": {"python": "3.11"},
    }
    (tmp_path / "growth.json").write_text(json.dumps(result))
    return module


def run(page: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks_page.py", *arguments])
    status: int = page.main()
    return status


def test_a_section_has_the_method_the_goals_the_tables_and_the_machine(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(page, monkeypatch) == 0
    written = page.PAGE.read_text()
    assert "## growth: Cost as work grows\n" in written
    assert (growth.__doc__ or "").partition("\n")[2].strip() in written
    assert "| exponent | 1 | <= 1.05 | yes |" in written
    assert "| queue: status | cohorts waiting | 10 to 100 | 0.001 to 0.01 s | 1.00 ± 0.00 | 1.00 |" in written
    assert "Measured 2026-01-01 at `abc` on 2 x a CPU, 8 GB: python 3.11." in written


def test_a_page_that_is_not_what_the_results_say_fails_the_check(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(page, monkeypatch, "--check") == 1
    run(page, monkeypatch)
    assert run(page, monkeypatch, "--check") == 0
    page.PAGE.write_text(page.PAGE.read_text().replace("0.01 s", "0.02 s"))
    assert run(page, monkeypatch, "--check") == 1


def test_every_row_of_a_table_has_as_many_cells_as_it_has_columns(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(page, monkeypatch)
    tables = re.findall(r"(?:^\|.*\n)+", page.PAGE.read_text(), re.MULTILINE)
    assert tables
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.012345, "0.0123"), (123456, "123,456"), (98765.4, "98,765"), (True, "True"), ("x", "x")]
)
def test_a_number_is_shown_as_a_reader_wants_it(page: ModuleType, value: object, shown: str) -> None:
    assert page.number(value) == shown
