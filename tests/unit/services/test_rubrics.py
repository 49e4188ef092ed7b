from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from preceptor_services.rubrics import PACKAGED, RubricError, load_rubrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the nano set that a test may spoil."""
    return Path(shutil.copytree(PACKAGED / "nano", tmp_path / "mine"))


def change(path: Path, **fields: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))


@pytest.mark.parametrize("name", ["nano", "instruct"])
def test_the_packaged_sets_judge_all_axes_and_rewrite(name: str) -> None:
    rubrics = load_rubrics(name)
    assert set(rubrics.axes) == {"quality", "safety", "factuality"}
    assert rubrics.rewrite is not None
    assert rubrics.axes["quality"].spec.mode == "pairwise"
    assert rubrics.description


def test_a_folder_is_a_set_named_like_it(folder: Path) -> None:
    rubrics = load_rubrics(str(folder))
    assert rubrics.axes["quality"].name == "mine/quality"
    assert rubrics.axes["quality"].hash == load_rubrics("nano").axes["quality"].hash


def test_a_rubric_may_name_an_axis_of_its_own(folder: Path) -> None:
    shutil.copy(folder / "safety.yaml", folder / "style.yaml")
    change(folder / "style.yaml", axis="style")
    assert load_rubrics(str(folder)).axes["style"].spec.axis == "style"


def test_the_hash_changes_with_anything_that_changes_the_question_or_its_reading(folder: Path) -> None:
    def hashes() -> tuple[str, str]:
        axes = load_rubrics(str(folder)).axes
        return axes["quality"].hash, axes["safety"].hash

    before = hashes()
    (folder / "safety.jinja").write_text("<safety>  {{ candidate }} <answer>")
    template_changed = hashes()
    assert template_changed[0] == before[0]
    assert template_changed[1] != before[1]
    change(folder / "quality.yaml", labels={"A": 1, "B": 0})
    assert hashes()[0] != before[0]
    between = hashes()
    change(folder / "set.yaml", control_tokens=["<quality>"])
    assert all(after != earlier for after, earlier in zip(hashes(), between, strict=True))
    between = hashes()
    change(folder / "set.yaml", description="other words")
    (folder / "quality.yaml").write_text("# a remark\n" + (folder / "quality.yaml").read_text())
    assert hashes() == between


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("quality.yaml", {"mode": "listwise"}, r"quality\.yaml.*\n.*mode"),
        ("quality.yaml", {"labels": {"A": 1, "B": 0, "tie": 0.3}}, "must score 1"),
        ("quality.yaml", {"labels": {"A": 1, "tie": 0.5}}, "must score 1"),
        ("quality.yaml", {"axis": "style"}, "must be the file's name, 'quality'"),
        ("quality.yaml", {"max_token": 1}, "max_token"),
        ("quality.yaml", {"max_tokens": 2}, "tokens needs max_tokens: 1"),
        ("quality.yaml", {"parser": "json"}, "cannot read what constraint"),
        ("quality.yaml", {"template": "none.jinja"}, r"none\.jinja: cannot be read"),
        ("safety.yaml", {"labels": {"yes": 1, "YES": 0}}, "differ in more than case"),
        ("safety.yaml", {"labels": {"yes": 2, "no": 0}}, r"labels\.yes"),
        ("safety.yaml", {"system": "safety.jinja"}, "system needs endpoint: chat"),
        ("set.yaml", {"control_tokens": ["answer"]}, "'answer' needs one of"),
        ("rewrite.yaml", {"join_words": -1}, r"rewrite\.yaml.*\n.*join_words"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file_and_key(
    folder: Path, file: str, fields: dict[str, object], message: str
) -> None:
    change(folder / file, **fields)
    with pytest.raises(RubricError, match=message):
        load_rubrics(str(folder))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ candidat }}", r"safety\.jinja: 'candidat' is undefined; a template may use candidate"),
        ("{{ candidate", r"safety\.jinja: is not a Jinja template"),
        ("{{ candidate.__class__.__mro__ }}", r"safety\.jinja"),
    ],
)
def test_a_template_is_tried_when_it_is_loaded(folder: Path, template: str, message: str) -> None:
    (folder / "safety.jinja").write_text(template)
    with pytest.raises(RubricError, match=message):
        load_rubrics(str(folder))


def test_an_unknown_set_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RubricError, match=r"'nan' is neither a packaged set \(instruct, nano\) nor a folder"):
        load_rubrics("nan")
    with pytest.raises(RubricError, match=r"set\.yaml: cannot be read"):
        load_rubrics(str(tmp_path))
    (tmp_path / "set.yaml").write_text("description: empty")
    with pytest.raises(RubricError, match="holds no rubric"):
        load_rubrics(str(tmp_path))
