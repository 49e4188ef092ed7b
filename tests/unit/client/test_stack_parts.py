"""What the parts of the local stack are started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_client.stack import Part, vllm_part


@pytest.fixture(autouse=True)
def a_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = tmp_path / "vllm"
    executable.touch()
    monkeypatch.setenv("PRECEPTOR_VLLM", str(executable))


def served(model: str | Path, folder: Path) -> Part:
    return vllm_part(model, "teacher", folder / "logs")


def test_a_teacher_samples_as_requests_say_and_not_by_defaults_of_its_own(tmp_path: Path) -> None:
    command = served(tmp_path, tmp_path).command
    assert command[command.index("--generation-config") + 1] == "vllm"


def test_a_model_that_may_have_to_be_fetched_is_waited_for_longer(tmp_path: Path) -> None:
    here, elsewhere = served(tmp_path, tmp_path), served("Qwen/Qwen3-4B-Instruct-2507", tmp_path)
    assert here.ready_timeout_s < elsewhere.ready_timeout_s
