from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from preceptor_trainer.cli import app

ROOT = Path(__file__).parents[3]
PAPER = ROOT / "configs" / "paper.yaml"
PLANS = sorted((ROOT / "configs" / "plans").glob("*.yaml"))


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


@pytest.mark.parametrize("models", PLANS, ids=[file.name for file in PLANS])
def test_the_papers_setting_is_planned_from_files_alone(models: Path) -> None:
    made = json.loads(plan(PAPER, "--plan", models, "--json").stdout)
    assert [stage["name"] for stage in made["stages"]] == ["rollouts", "rewriting", "judging", "update"]
    assert made["fits"]
    assert made["gpus"] <= 128
    assert made["gpu_hours"] == pytest.approx(made["gpus"] * 2000 * made["step_seconds"] / 3600)


def test_keys_of_the_run_and_of_the_plan_are_set_by_arguments() -> None:
    arguments = (PAPER, "--plan", PLANS[0], "--json")
    few = json.loads(plan(*arguments, "--steps=200", "--plan.gpus=64", "--plan.gpu=H200").stdout)
    assert (few["steps"], few["gpu"]["name"]) == (200, "H200 SXM 141 GB")
    assert few["gpus"] <= 64


def test_tables_come_for_a_terminal_and_for_a_page() -> None:
    shown, page = (plan(PAPER, "--plan", PLANS[0], *more).stdout for more in ((), ("--markdown",)))
    for title in ("One step", "The run", "Reckoned with", "On other numbers of GPUs"):
        assert title in shown
        assert f"{title}:" in page
    assert "| stage | model | calls |" in page


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--plan.gpu=T4",), 2, "gpu: Input should be 'A100', 'H100', 'H200' or 'B200'"),
        (("--plan.gpus=1",), 1, "plan.gpus is 1, and the run takes"),
        (("--plan.policy=null",), 1, "set plan.policy"),
        (("--plan.judge=null",), 1, "plan.judge is not set"),
        (("--plan.judge=nowhere",), 1, "give the sizes"),
        (("--steps=0",), 2, "steps"),
        (("--gpu=H100",), 2, "gpu"),
    ],
)
def test_what_cannot_be_planned_is_one_error_that_says_what_to_set(
    arguments: tuple[str, ...], status: int, message: str
) -> None:
    failed = plan(PAPER, "--plan", PLANS[0], *arguments)
    assert failed.exit_code == status
    assert message in failed.stderr
    assert failed.stderr.startswith("preceptor plan: ")


def test_what_does_not_fit_in_memory_is_told_beside_the_plan() -> None:
    made = plan(PAPER, "--plan", PLANS[0], "--compute.micro_cohorts=null", "--plan.gpus=8", "--json")
    assert "lower compute.micro_cohorts" in made.stderr
    assert not json.loads(made.stdout)["fits"]
