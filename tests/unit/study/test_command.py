"""`preceptor study`, as far as it needs no stack."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from preceptor_trainer.cli import app
from preceptor_trainer.study.command import tiny_one
from preceptor_trainer.study.definition import load_study, packaged
from preceptor_trainer.study.plan import plan_runs


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["study", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_without_a_name_the_studies_are_listed() -> None:
    status, out, _ = run()
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [*packaged(), "thoughts"]


def test_mistakes_are_told_in_one_line_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, told in [
        (("mian",), "no study mian"),
        (("main", "--variants", "spi"), "no variant spi"),
        (("thoughts", "--variants", "rl"), "takes no --variants"),
    ]:
        status, _, err = run(*arguments, "--out", str(out))
        assert status == 2
        assert err.count("\n") == 1
        assert told in err
    assert not out.exists()


def test_all_of_a_tiny_study_is_tiny() -> None:
    study = tiny_one(load_study("twice"))
    runs = plan_runs(study, seeds=1)
    assert {run.plan.steps for run in runs if run.plan} == {study.size.steps}
    assert {run.variant.teacher_steps for run in runs} == {None, study.size.second_steps}
    needy = {run.variant.name for run in runs if run.needs}
    assert needy == {"by-sip", "by-sip-1400", "on-usual", "on-by-sip", "on-by-sip-1400"}
