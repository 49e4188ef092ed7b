"""What is missing; what is made is there whole. The rest of the runner is in tests/integration/test_study.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_trainer.study.definition import load_study
from preceptor_trainer.study.plan import StudyFolder, plan_runs
from preceptor_trainer.study.runner import made_once, missing


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    assert made_once(target, lambda path: path.write_text("first")) == target
    made_once(target, lambda path: path.write_text("second"))
    assert target.read_text() == "first"


def test_what_was_left_half_made_is_not_there_and_is_made_anew(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise OSError("no room")

    def make(path: Path) -> None:
        path.mkdir()
        (path / "whole").touch()

    with pytest.raises(OSError, match="no room"):
        made_once(target, fail)
    assert not target.exists()
    made_once(target, make)
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_what_is_measured_is_trained_again_only_if_its_policy_is_gone_and_another_run_needs_it(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    runs = plan_runs(load_study("twice"), seeds=2)
    assert missing(runs, folder) == runs

    by_name = {f"{run.variant.name} {run.seed}": run for run in runs}
    for name, run in by_name.items():
        folder.policy(run.id).mkdir(parents=True)
        if name != "by-sip 1":
            folder.result(run.id).touch()
    assert missing(runs, folder) == [by_name["by-sip 1"]]

    for seed in range(2):
        folder.policy(by_name[f"sip {seed}"].id).rmdir()
    assert missing(runs, folder) == [by_name["sip 1"], by_name["by-sip 1"]], "of seed 0 nothing needs it"
