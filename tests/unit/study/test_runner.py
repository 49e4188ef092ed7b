"""What is missing. The rest of the runner is in tests/integration/test_study.py."""

from __future__ import annotations

from pathlib import Path

from preceptor_trainer.study.definition import load_study
from preceptor_trainer.study.plan import StudyFolder, plan_runs
from preceptor_trainer.study.runner import missing


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
