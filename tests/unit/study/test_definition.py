"""Studies as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_trainer.errors import TrainError
from preceptor_trainer.study.definition import BASE, load_study, packaged
from preceptor_trainer.study.plan import plan_runs

VARIANT = "{name: a, about: an a}"
UNTRAINED_A = "{name: a, about: an a, trained: false}"
B_ON_A = "{name: b, about: a b, start: a}"
B_BY_A = "{name: b, about: a b, teacher_from: a}"


def write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_study_can_be_trained_as_it_is_written(name: str) -> None:
    study = load_study(name)
    runs = plan_runs(study, seeds=2)
    assert study.takes
    assert len(runs) == 2 * (1 + len(study.variants))
    assert len({run.id for run in runs}) == len(runs), "two variants are the same"


def test_a_file_is_a_study_of_its_name(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, f"{{title: t, question: q, size: {{steps: 7}}, variants: [{VARIANT}]}}"))
    assert (study.name, study.size.steps, study.size.judged) == ("mine", 7, 200)
    assert [run.variant.name for run in plan_runs(study, seeds=1)] == [BASE.name, "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "mine.yaml"),
        ("{title: t, question: q, variants: []}", "variants"),
        (f"{{title: t, question: q, variants: [{VARIANT}, {VARIANT}]}}", "names of their own"),
        ("{title: t, question: q, variants: [{name: base, about: b}]}", "none may be called base or scratch"),
        (f"{{title: t, question: q, variants: [{B_ON_A}, {VARIANT}]}}", "b: there is no trained variant a above"),
        (
            f"{{title: t, question: q, variants: [{UNTRAINED_A}, {B_BY_A}]}}",
            "b: there is no trained variant a above",
        ),
        ("{title: t, question: q, variants: [{name: a, about: a, flops_of: b}]}", "flops_of has to name a variant"),
        ("{title: t, question: q, variants: [{name: a, about: a, trained: false, control: b}]}", "a: control is for"),
        (f"{{title: t, question: q, size: {{step: 7}}, variants: [{VARIANT}]}}", "size.step"),
        (f"{{title: t, question: q, variants: [{VARIANT}", "cannot read"),
    ],
)
def test_what_is_no_study_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainError, match=message) as told:
        load_study(write(tmp_path, text))
    assert "\n" not in str(told.value)


def test_a_study_that_there_is_none_of_is_told_with_those_that_there_are() -> None:
    with pytest.raises(TrainError, match=r"no study mian: there is .*main"):
        load_study("mian")
