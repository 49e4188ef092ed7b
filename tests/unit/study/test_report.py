"""What a study leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from preceptor_trainer.study.definition import Study
from preceptor_trainer.study.report import write_report

STUDY = Study.model_validate(
    {
        "name": "mine",
        "title": "Mine",
        "question": "What is mine?",
        "variants": [{"name": "one", "about": "the one"}],
        "takes": "no time",
    }
)
RECORDS = [
    {"variant": "base", "measures": {"safety": {"value": 0.5, "ci95": [0.25, 0.75]}}},
    {"variant": "one", "measures": {"safety": {"value": 0.75, "ci95": [0.5, 1.0]}}},
]


def test_results_tables_and_picture_are_in_the_folder(tmp_path: Path) -> None:
    written = write_report(tmp_path, STUDY, RECORDS, tables="tables\n", shown={"safety": "safe", "nll": "NLL"})
    assert [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()] == RECORDS
    assert written.read_text() == "tables\n\n![mine](mine.png)\n"
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_without_results_there_is_no_picture(tmp_path: Path) -> None:
    written = write_report(tmp_path, STUDY, [], tables="none yet\n", shown={"safety": "safe"})
    assert written.read_text() == "none yet\n"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.jsonl", "mine.md"}
