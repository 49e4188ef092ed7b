"""`preceptor study` as a process: real services, real vLLM, real runs, killed on the way and gone on with.

The last of its runs goes on from the one before, and is judged by a teacher that began as that one's policy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = """
title: Two of them
question: Does it run?
variants:
  - {name: sip, about: SIP}
  - {name: sft, about: SFT on one rollout, start: sip, teacher_from: sip, teacher_steps: 9,
     changes: {objective.name: nll, objective.target: rollout, pool: {original: false, rollouts: 1}}}
"""


def command(study: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "preceptor_client", "study", str(study), "--tiny", "--seeds=1", f"--out={out}"]


def until_measured(process: subprocess.Popen[str], out: Path, count: int) -> list[Path]:
    """Wait for so many results, of which no event tells another process."""
    deadline = time.monotonic() + 400
    while len(found := list(out.glob("runs/*/result.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_study_that_was_killed_goes_on_and_repeats_nothing(tmp_path: Path, nano_teacher_dir: Path) -> None:
    study, out = tmp_path / "two.yaml", tmp_path / "out"
    study.write_text(STUDY)
    with subprocess.Popen(
        command(study, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        done = until_measured(process, out, 2)
        os.kill(process.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in [*done, *out.glob("worlds/*/runs/*")]}

    resumed = subprocess.run(command(study, out), capture_output=True, text=True, timeout=400, check=False)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count(": done in") == 1, "the one that was missing"
    assert {path: path.stat().st_mtime_ns for path in before} == before

    records = [json.loads(line) for line in (out / "two.jsonl").read_text().splitlines()]
    assert [(record["variant"], record["steps"]) for record in records] == [("base", 0), ("sip", 3), ("sft", 3)]
    base, sip, sft = records
    assert sip["judge_calls"] > 0 == sft["judge_calls"]
    assert sip["flops"] > sft["flops"] > 0
    assert base["measures"]["wins"]["value"] == 0.5
    measured = {"quality_wins", "nll", "entropy", "distinct_2", "length", "oracle_wins"}
    assert all(measured <= set(record["measures"]) for record in records)
    by_judges = {"judge_wins", "second_quality_wins"}
    assert all(by_judges <= set(record["measures"]) for record in (sip, sft))
    assert not by_judges & set(base["measures"]), "they would be asked which of two same texts is better"
    assert len({record["measures"]["nll"]["value"] for record in records}) == 3, "both were trained"
    assert sft["teacher"]["quality"] < sip["teacher"]["quality"], "a judge that has hardly been taught"
    config = yaml.safe_load((out / "runs" / sft["id"] / "run.yaml").read_text())
    assert config["model"]["path"] == str(out / "runs" / sip["id"] / "final")
    assert (out / "two.png").exists()
    assert "| SFT on one rollout | 1 |" in (out / "two.md").read_text()

    third = subprocess.run(command(study, out), capture_output=True, text=True, timeout=60, check=True)
    assert ": done in" not in third.stdout
