"""docs/results.md is what the script makes of docs/results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
RECORD = {
    "study": "beta",
    "variant": "beta-1",
    "seed": 0,
    "id": "0",
    "measures": {"safety": {"value": 0.625, "ci95": [0.5, 0.75]}},
    "steps": 150,
    "flops": 2e12,
    "train_s": 60.0,
    "judge_calls": 10,
    "teacher": {"quality": 0.9},
    "at": "2026-01-01",
    "commit": "abc",
    "cpu": "a CPU",
    "cpus": 2,
    "memory_gb": 8,
}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_page", ROOT / "scripts" / "results_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a page and results of its own."""
    module = script()
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "PAGE", tmp_path / "results.md")
    return module


def run(page: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["results_page.py", *arguments])
    status: int = page.main()
    return status


def test_the_page_is_what_the_results_say() -> None:
    module = script()
    assert module.PAGE.read_text(encoding="utf-8") == "\n".join(module.lines()), "run scripts/results_page.py"


def test_results_are_taken_over_and_shown_and_a_page_without_them_fails_the_check(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(page, monkeypatch) == 0
    assert "| beta | The pull towards the reference | none yet |" in page.PAGE.read_text()
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "beta.jsonl").write_text(json.dumps(RECORD) + "\n")
    (studies / "beta.png").write_bytes(b"a picture")
    (studies / "someone-elses.jsonl").touch()
    assert run(page, monkeypatch, "--from", str(studies), "--check") == 1
    assert run(page, monkeypatch) == 0
    assert run(page, monkeypatch, "--check") == 0
    written = page.PAGE.read_text()
    assert "| beta | The pull towards the reference | 1, of 1 seeds |" in written
    assert "## beta: The pull towards the reference\n" in written
    assert "0.625 ±0.125" in written
    assert "![The pull towards the reference](results/beta.png)" in written
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"beta.jsonl", "beta.png"}


def test_the_study_of_thoughts_has_columns_of_its_own(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    page.RESULTS.mkdir()
    measures = {"held_out": {"value": 0.75, "ci95": [0.5, 1.0]}}
    record = RECORD | {"study": "thoughts", "variant": "sft", "measures": measures}
    (page.RESULTS / "thoughts.jsonl").write_text(json.dumps(record) + "\n")
    assert run(page, monkeypatch) == 0
    written = page.PAGE.read_text()
    assert "two hops, people held out" in written
    assert "| SFT with thoughts | 1 | 0.750 ±0.250 |" in written
