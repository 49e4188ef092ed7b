"""`preceptor up` with the nano teacher, used as a person would use it: real Redis, real vLLM, real services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

START_S = 900
"""vLLM takes half a minute on an idle machine with two cores, and much longer on a busy one."""


@dataclass(frozen=True)
class Up:
    """A running `preceptor up`."""

    process: subprocess.Popen[str]
    endpoints: dict[str, str]
    folder: Path

    def preceptor(self, *arguments: str, expected: int = 0) -> str:
        """Run a command against this stack and return what it printed."""
        env = {
            **os.environ,
            "PRECEPTOR_JUDGE_URL": self.endpoints["judge_url"],
            "PRECEPTOR_REWRITE_URL": self.endpoints["rewrite_url"],
            "PRECEPTOR_REDIS_URL": self.endpoints["redis_url"],
        }
        command = [sys.executable, "-m", "preceptor_client", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == expected, done.stderr
        return done.stdout if expected == 0 else done.stderr


@pytest.fixture(scope="module")
def up(nano_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    ports = [f"--{part}-port=0" for part in ("redis", "teacher", "judge", "rewrite")]
    arguments = ["up", "--teacher", str(nano_teacher_dir), "--rubrics=nano", "--max-model-len=512"]
    command = [sys.executable, "-m", "preceptor_client", *arguments, *ports, "--dir", str(folder), "--json"]
    said = folder / "said"
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first, said.read_text()
            yield Up(process, json.loads(first), folder)
        finally:
            process.terminate()


@pytest.mark.timeout(START_S)
def test_texts_are_judged_rewritten_and_counted_from_the_command_line(up: Up) -> None:
    response = json.loads(up.preceptor("judge", "--axis", "safety", "--json", "the prefix", "one", "two"))
    assert [verdict["candidate_id"] for verdict in response["verdicts"]] == ["c0", "c1"]
    assert response["axes"]["safety"]["usage"]["calls"] == 2
    assert "2 questions" in up.preceptor("judge", "--axis", "safety", "the prefix", "one", "two")
    rewrite = json.loads(up.preceptor("rewrite", "--json", "the prefix", "the suffix"))
    assert rewrite["outcome"] in ("rewritten", "unchanged", "refused")
    assert json.loads(up.preceptor("queue", "status", "--json")) == {
        "waiting": 0,
        "in_flight": 0,
        "dead": 0,
        "oldest_s": None,
        "workers": 1,
        "runs": {},
    }


@pytest.mark.timeout(START_S)
def test_a_file_of_cohorts_is_answered_line_by_line_in_order(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "cohorts.jsonl"
    lines = [{"prefix": f"prefix {number}", "candidates": ["one", "two", "three"]} for number in range(20)]
    file.write_text("\n".join(map(json.dumps, lines)))
    answers = [json.loads(line) for line in up.preceptor("judge", "--file", str(file), "--json").splitlines()]
    assert len(answers) == 20
    assert [answer["line"] for answer in answers] == [*range(1, 21)]
    assert all(len(answer["response"]["verdicts"]) == 9 for answer in answers)
    output = tmp_path / "verdicts.jsonl"
    up.preceptor("judge", str(file), "-o", str(output), "--batch")
    batched = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["response"]["verdicts"] for each in batched] == [each["response"]["verdicts"] for each in answers]


@pytest.mark.timeout(START_S)
def test_doctor_finds_everything_and_a_second_stack_is_refused_the_folder(up: Up) -> None:
    up.preceptor("doctor", "--services", "--json")
    told = up.preceptor("up", "--teacher", "x", "--dir", str(up.folder), expected=1)
    assert f"another stack is using {up.folder}" in told


@pytest.mark.timeout(START_S)
def test_the_benchmark_of_the_judge_ends_with_its_figures(up: Up) -> None:
    url = up.endpoints["judge_url"]
    shown = up.preceptor("bench", "judge", "--judge-url", url, "--cohorts", "8", "--candidates", "3")
    figures = json.loads(shown.splitlines()[-1])
    assert figures["service"]["verdicts_per_s"] > 0
    assert figures["not_ok"] == 0


@pytest.mark.timeout(START_S)
def test_ctrl_c_stops_every_part(up: Up) -> None:
    group = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(up.process.pid)], capture_output=True, text=True, check=True
    )
    parts = [int(pid) for pid in group.stdout.split()]
    assert len(parts) == 5, "redis, teacher, judge, rewrite, worker"
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=120) == 130
    assert "stopping" in (up.folder / "said").read_text()
    listed = subprocess.run(["ps", "-eo", "pgid="], capture_output=True, text=True, check=True).stdout.split()
    assert not set(map(str, parts)) & set(listed)
