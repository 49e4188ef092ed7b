from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from preceptor_client.config import ConfigError, load_config
from preceptor_trainer.cli import app
from preceptor_trainer.teach.config import ENV_PREFIX, TeachConfig, TeachJudge, TeachRewriter

CONFIGS = Path(__file__).parents[3] / "configs" / "teach"


def kind(file: Path) -> type[TeachConfig]:
    return TeachRewriter if "rewriter" in file.name else TeachJudge


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configurations_that_come_along_are_valid(file: Path) -> None:
    load_config(kind(file), file, env_prefix=ENV_PREFIX)


def test_the_papers_settings_are_there() -> None:
    config = load_config(TeachJudge, CONFIGS / "instruct_judge.yaml", env_prefix=ENV_PREFIX)
    prompts = config.exercises_per_step * (2 - config.safety_share)
    assert prompts == pytest.approx(256, abs=1)
    assert (config.answers.count, config.answers.temperature) == (16, 0.6)
    assert (config.optimizer.lr, config.steps, config.safety.votes.count) == (2e-7, 500, 8)


def test_a_dry_run_prints_what_is_resolved() -> None:
    result = CliRunner().invoke(
        app, ["teach", "judge", str(CONFIGS / "nano_judge.yaml"), "--answers.count=4", "--dry-run"]
    )
    assert result.exit_code == 0, result.output
    assert "count: 4" in result.stdout
    assert "consistency: both" in result.stdout


def test_half_precision_without_adapters_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set model\.lora"):
        load_config(TeachJudge, CONFIGS / "nano_judge.yaml", ["--model.dtype=bfloat16"], env_prefix=ENV_PREFIX)


def test_a_wrong_key_ends_in_one_error_and_no_traceback() -> None:
    result = CliRunner().invoke(app, ["teach", "rewriter", str(CONFIGS / "nano_judge.yaml"), "--grading.votes.count=0"])
    assert result.exit_code == 2
    assert "grading.votes.count" in result.stderr
    assert "Traceback" not in result.output


def test_a_teacher_cannot_begin_as_a_policy_that_is_not_there(tmp_path: Path) -> None:
    arguments = ["teach", "nano", "--out", str(tmp_path), "--policy", str(tmp_path / "none")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("preceptor teach nano: cannot read the policy")
    assert result.stderr.count("\n") == 1
