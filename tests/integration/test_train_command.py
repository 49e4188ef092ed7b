"""`python -m preceptor_trainer train` as its users meet it: output, exit status, files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from preceptor_trainer.cli import app
from tiny_policy import save_policy

COMMAND = [sys.executable, "-m", "preceptor_trainer", "train"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The next-token baseline on a tiny corpus."""
    save_policy(tmp_path / "policy", scale=0.02)
    (tmp_path / "corpus").mkdir()
    for number in range(40):
        words = (f"w{(number + 3 * position) % 58 + 2}" for position in range(20))
        (tmp_path / "corpus" / f"{number:02}.txt").write_text(" ".join(words))
    file = tmp_path / "train.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "run": "baseline",
                "out": str(tmp_path / "out"),
                "steps": 40,
                "cohorts_per_step": 8,
                "model": {"path": str(tmp_path / "policy")},
                "data": {"source": "text", "path": str(tmp_path / "corpus"), "prefix_tokens": 8, "suffix_tokens": 6},
                "objective": {"name": "nll"},
                "optimizer": {"lr": 1e-2},
            }
        )
    )
    return file


def test_the_baseline_trains_without_redis_or_services(config: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(config), "--checkpoint.every=20"])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert lines[0]["loss"] == pytest.approx(torch.tensor(60.0).log().item(), abs=0.1)
    assert lines[-1]["loss"] < 1.5
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["trained"] == {"steps": 40, "cohorts": 320, "tokens": 1920}
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["checkpoint"]["every"] == 20
    final = tmp_path / "out" / "final"
    assert AutoTokenizer.from_pretrained(final).encode("w5 w8") == [5, 8]
    trained = AutoModelForCausalLM.from_pretrained(final)
    # Every third word follows: the corpus's only rule.
    with torch.inference_mode():
        assert trained(torch.tensor([[10, 13, 16, 19, 22]])).logits[0, -1].argmax().item() == 25


def test_the_same_seed_trains_the_same_weights(config: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = CliRunner().invoke(app, ["train", str(config), "--steps=5", f"--out={tmp_path / name}"])
        assert result.exit_code == 0, result.output
    a, b = [AutoModelForCausalLM.from_pretrained(tmp_path / name / "final") for name in ("a", "b")]
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_dry_run_prints_what_would_run_and_does_nothing(config: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(config), "--steps=7", "--dry-run"])
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["steps"] == 7
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        (["--steps=none"], 2, "steps"),
        (["--model.path=/nowhere"], 1, "cannot load the policy /nowhere"),
        (["--data.path=/nowhere"], 1, "/nowhere: no such file or folder; set data.path"),
        (["--data.prefix_tokens=60"], 1, "lower one of them"),
        (["--device=cuda"], 1, "torch sees no GPU"),
        (["--out=/proc/out"], 1, "cannot write to /proc/out"),
        (
            ["--objective.name=dpo", "--pool.rollouts=2", "--judge.redis_url=redis://127.0.0.1:9/0"],
            1,
            "no Redis at redis://127.0.0.1:9/0",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(config: Path, overrides: list[str], status: int, message: str) -> None:
    if "--device=cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = CliRunner().invoke(app, ["train", str(config), *overrides])
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_cleanly(config: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [*COMMAND, str(config), "--steps=100000", "--checkpoint.every=5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "step 1/" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"stopped by {number.name}" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").rglob("*.partial"))
