"""Every command and every example of the page on the API, against the real services on a real vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pages import ROOT, blocks
from preceptor_client.contract import Problem
from preceptor_client.stack import Stack, judge_part, rewrite_part

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "using-the-api.md"


@pytest.fixture(scope="module")
def urls(
    stack: Stack, teacher_vllm: TeacherServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Where the services really are, by the variable that says so."""
    folder = tmp_path_factory.mktemp("services")
    store = [f"--store.url={redis_url}", f"--store.namespace={folder.name}"]
    judge = stack.start(judge_part(folder, teacher_vllm.url, teacher_vllm.model, overrides=store)).part.url
    rewrite = stack.start(rewrite_part(folder, teacher_vllm.url, teacher_vllm.model)).part.url
    assert judge is not None
    assert rewrite is not None
    return {"PRECEPTOR_JUDGE_URL": judge, "PRECEPTOR_REWRITE_URL": rewrite}


def run(command: list[str], urls: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **urls}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_curl_command_runs(urls: dict[str, str]) -> None:
    answers = []
    for block in blocks(PAGE, "bash"):
        command = block.replace("http://127.0.0.1:8101", urls["PRECEPTOR_JUDGE_URL"])
        command = command.replace("http://127.0.0.1:8102", urls["PRECEPTOR_REWRITE_URL"])
        output = run(["bash", "-euo", "pipefail", "-c", command], urls)
        if "/events" in block:
            assert output.count("event: result") == 2
            assert "event: done" in output
        else:
            answers += [json.loads(line) for line in output.splitlines()]
    assert len(blocks(PAGE, "bash")) == 14
    verdicts = [verdict for answer in answers for verdict in answer.get("verdicts", [])]
    assert {verdict["status"] for verdict in verdicts} == {"ok"}
    assert [answer["state"] for answer in answers if "state" in answer][1:] == ["done", "done"]
    (problem,) = [Problem.model_validate(answer) for answer in answers if "title" in answer]
    assert (problem.status, problem.request_id) == (422, "my-request-1")
    assert "cohort.candidates" in str(problem.detail)


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "python"))))
def test_every_python_example_runs(number: int, urls: dict[str, str]) -> None:
    assert run([sys.executable, "-c", blocks(PAGE, "python")[number]], urls).strip()
