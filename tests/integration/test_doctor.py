"""The doctor with a configuration, on the real stack: a run that can start, and what keeps one from it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from preceptor_client.checks import Check
from preceptor_client.queue import QueueOperations, RunStatus, connect
from preceptor_client.stack import Stack, rewrite_part, worker_part
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.doctor.examine import examine
from preceptor_trainer.nano.corpus import write_corpus
from tiny_policy import nano_policy

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
Build = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def namespace() -> str:
    return f"doctor-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def build(
    stack: Stack,
    teacher_vllm: TeacherServer,
    redis_url: str,
    namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Build]:
    """`build(section={...})`: a run that worker and rewrite service are there for, with these changes."""
    folder = tmp_path_factory.mktemp("doctor")
    for part in nano_policy():
        part.save_pretrained(folder / "policy")
    corpus = write_corpus(folder / "corpus.jsonl", 40, name="doctor")
    teacher = (teacher_vllm.url, teacher_vllm.model)
    parts = [
        stack.start(worker_part(folder, *teacher, redis_url, overrides=[f"--queue.namespace={namespace}"])),
        stack.start(rewrite_part(folder, *teacher)),
    ]
    values: dict[str, Any] = {
        "run": "doctor",
        "out": folder / "out",
        "steps": 4,
        "cohorts_per_step": 4,
        "model": {"path": str(folder / "policy")},
        "data": {"path": str(corpus), "prefix_tokens": 24, "min_prefix_tokens": 8, "suffix_tokens": 16},
        "pool": {"rewrite": True, "rollouts": 2},
        "judge": {"redis_url": redis_url, "namespace": namespace},
        "rewrite": {"url": parts[1].part.url},
    }

    def build(**changes: dict[str, Any]) -> TrainConfig:
        return TrainConfig.model_validate(
            {**values, **{name: {**values.get(name, {}), **changes[name]} for name in changes}}
        )

    yield build
    for part in reversed(parts):
        stack.stop_part(part)


def found(config: TrainConfig) -> dict[str, Check]:
    return {check.name: check for check in examine(config, services=True)}


def left_in(redis_url: str, namespace: str) -> tuple[int, dict[str, RunStatus]]:
    """Dead letters, and the runs of which Redis knows anything."""

    async def ask() -> tuple[int, dict[str, RunStatus]]:
        async with connect(redis_url) as redis:
            status = await QueueOperations(redis, namespace=namespace).status()
            return status.dead, status.runs

    return asyncio.run(ask())


def test_a_run_that_can_start_has_a_cohort_judged_and_leaves_nothing(
    build: Build, redis_url: str, namespace: str
) -> None:
    checks = found(build())
    assert {check.grade for check in checks.values()} == {"ok"}, checks
    assert checks["a rewrite"].found in ("rewritten", "unchanged")
    for axis in ("quality", "safety", "factuality"):
        assert checks[f"judge, {axis}"].found.startswith("2 of 2 verdicts, by nano-teacher")
    assert "the same in both orders" in checks["judge, quality"].found
    assert left_in(redis_url, namespace) == (0, {})


def test_an_axis_that_the_judge_does_not_have_is_a_failure_and_no_dead_letter(
    build: Build, redis_url: str, namespace: str
) -> None:
    checks = found(build(judge={"axes": {"elegance": 1.0}}))
    assert checks["judge"].grade == "failure"
    assert "no rubric for 'elegance'" in checks["judge"].found
    assert "judge.axes" in checks["judge"].advice
    assert left_in(redis_url, namespace) == (0, {})


def test_windows_too_long_for_the_teacher_are_a_failure_in_its_own_words(
    build: Build, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "short.jsonl", 30, name="doctor")
    text = " ".join(json.loads(line)["text"] for line in corpus.read_text().splitlines())
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": text}) + "\n")
    long = {"path": str(tmp_path / "long.jsonl"), "prefix_tokens": 900, "min_prefix_tokens": 800}
    checks = found(build(data=long))
    assert {checks[name].grade for name in ("a rewrite", "judge, quality", "judge, factuality")} == {"failure"}
    assert "context length" in checks["judge, quality"].found
    assert left_in(redis_url, namespace) == (0, {})


def test_a_policys_server_that_takes_no_weights_is_a_failure(build: Build, teacher_vllm: TeacherServer) -> None:
    vllm = {"url": teacher_vllm.url, "model": teacher_vllm.model}
    checks = found(build(rollouts={"engine": "vllm", "vllm": vllm}))
    assert checks["policy's vLLM context"].found.startswith("takes 512 tokens")
    assert checks["policy's vLLM"].grade == "failure"
    assert "VLLM_SERVER_DEV_MODE=1" in checks["policy's vLLM"].found
    other = found(build(rollouts={"engine": "vllm", "vllm": {**vllm, "model": "other"}}))
    assert "serves nano-teacher, and no other: set rollouts.vllm.model" in other["policy's vLLM"].found


def test_without_a_worker_the_command_fails_and_says_what_to_start(build: Build, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(json.dumps(build().model_dump(mode="json")))
    command = [sys.executable, "-m", "preceptor_client", "doctor", str(file), "--judge.namespace=nobody", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert [name for name, check in checks.items() if check["grade"] == "failure"] == ["workers"]
    assert "start one" in checks["workers"]["advice"]
