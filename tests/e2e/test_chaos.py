"""The chaos suite's short form, through the command: every part is hit, in every way, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="parts are stopped when this process dies only on Linux"),
]

FAULTS = 6
SEED = 25
"""Its six faults hit every part and come in every kind; vLLM, which takes long to start, is paused and not ended."""


def test_nothing_is_lost_while_everything_is_killed(tmp_path: Path, nano_teacher_dir: Path) -> None:
    command = [sys.executable, "-m", "preceptor_client", "bench", "chaos", "--json"]
    options = ["--faults", str(FAULTS), "--seed", str(SEED), "--teacher", str(nano_teacher_dir), "--dir", str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["faults"] == FAULTS
    assert {*figures["faults_by_part"]} == {"worker", "judge", "vllm", "redis", "trainer"}
    assert {*figures["faults_by_kind"]} == {"kill", "pause", "restart"}
    for what in ("lost", "doubled", "failed_as_reward", "too_stale"):
        assert figures[what] == 0, done.stderr
    assert figures["resumed_ok"] == figures["resumes"] >= 2
    assert figures["cohorts_trained"] > 0
    assert figures["batch_items"] > 0
