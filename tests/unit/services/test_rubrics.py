from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from preceptor_client.rubrics import RubricError
from preceptor_services.rubrics import PACKAGED, load_rubrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the nano set that a test may spoil."""
    return Path(shutil.copytree(PACKAGED / "nano", tmp_path / "mine"))


def change(path: Path, **fields: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))


@pytest.mark.parametrize("name", ["nano", "instruct"])
def test_the_packaged_sets_judge_all_axes_and_rewrite(name: str) -> None:
    book = load_rubrics(name)
    assert set(book.defaults) == {"quality", "safety", "factuality"}
    assert book.rewrite is not None
    assert book.defaults["quality"].spec.mode == "pairwise"
    assert all(rubric.spec.description for rubric in book.rubrics.values())


def test_the_instruct_set_judges_quality_listwise_as_well() -> None:
    rubrics = load_rubrics("instruct").rubrics
    assert rubrics["instruct/quality_best_of"].spec.mode == "best_of"
    assert rubrics["instruct/quality_ranking"].spec.mode == "ranking"


def test_a_folder_is_a_set_named_like_it(folder: Path) -> None:
    book = load_rubrics(str(folder))
    assert book.defaults["quality"].name == "mine/quality"
    assert book.defaults["quality"].hash == load_rubrics("nano").defaults["quality"].hash


def test_a_rubric_may_name_an_axis_of_its_own(folder: Path) -> None:
    shutil.copy(folder / "safety.yaml", folder / "style.yaml")
    change(folder / "style.yaml", axis="style")
    assert load_rubrics(str(folder)).defaults["style"].spec.axis == "style"


def test_several_rubrics_for_one_axis_have_a_default_by_name(folder: Path) -> None:
    shutil.copy(folder / "safety.yaml", folder / "strict_safety.yaml")
    book = load_rubrics(str(folder))
    assert book.defaults["safety"].name == "mine/safety"
    assert book.choose("safety", "mine/strict_safety").name == "mine/strict_safety"
    (folder / "safety.yaml").rename(folder / "lax_safety.yaml")
    with pytest.raises(RubricError, match=r"lax_safety\.yaml and strict_safety\.yaml judge safety: .* safety\.yaml"):
        load_rubrics(str(folder))


def test_of_several_sources_the_later_gives_the_default(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "short.yaml"
    own.write_text(
        "axis: quality\nmode: pointwise\nprompt: '{{ candidate }}'\nlabels: {short: 1, long: 0}\nparser: exact\n"
    )
    book = load_rubrics("instruct", "nano", str(own))
    assert book.defaults["quality"].name == "own/short"
    assert book.defaults["safety"].name == "nano/safety"
    assert book.rewrite is not None
    assert book.rewrite.name == "nano/rewrite"
    assert "instruct/quality" in book.rubrics
    assert {info.name for info in book.listing.rubrics if info.default} == {
        "own/short",
        "nano/safety",
        "nano/factuality",
    }


def test_a_rubric_of_a_request_is_compiled_and_its_mistakes_told(folder: Path) -> None:
    spec = load_rubrics("nano").defaults["safety"].spec
    book = load_rubrics("instruct")
    assert book.choose("safety", spec).name == "request/safety"
    with pytest.raises(RubricError, match="rubrics: prompt of request/safety, line 2: 'candidat' is undefined"):
        book.choose("safety", spec.model_copy(update={"prompt": "one\n{{ candidat }}"}))


@pytest.mark.parametrize(
    ("axis", "wanted", "message"),
    [
        ("style", None, "axes: no rubric for 'style': this service has factuality, quality, safety"),
        ("safety", "nano/none", "no rubric 'nano/none': this service has nano/factuality"),
        ("safety", "nano/quality", "'nano/quality' judges quality, not safety"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(axis: str, wanted: str | None, message: str) -> None:
    with pytest.raises(RubricError, match=message):
        load_rubrics("nano").choose(axis, wanted)


def test_the_hash_changes_with_anything_that_changes_the_question_or_its_reading(folder: Path) -> None:
    def hashes() -> tuple[str, str]:
        defaults = load_rubrics(str(folder)).defaults
        return defaults["quality"].hash, defaults["safety"].hash

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
        ("quality.yaml", {"mode": "listwise"}, r"quality\.yaml:\d+: mode: "),
        ("quality.yaml", {"mode": "ranking"}, "mode ranking takes no labels"),
        ("quality.yaml", {"labels": {"A": 1, "B": 0, "tie": 0.3}}, "must score 1"),
        ("quality.yaml", {"labels": {"A": 1, "tie": 0.5}}, "must score 1"),
        ("quality.yaml", {"max_token": 1}, r"quality\.yaml:\d+: max_token: "),
        ("quality.yaml", {"max_tokens": 2}, "tokens needs max_tokens: 1"),
        ("quality.yaml", {"parser": "json"}, "cannot read what constraint"),
        ("quality.yaml", {"prompt_file": "none.jinja"}, r"none\.jinja: cannot be read"),
        ("safety.yaml", {"labels": {"yes": 1, "YES": 0}}, "differ in more than case"),
        ("safety.yaml", {"labels": {"yes": 2, "no": 0}}, r"labels\.yes"),
        ("safety.yaml", {"labels": {"y" * 129: 1, "no": 0}}, "at most 128 characters"),
        ("safety.yaml", {"system_file": "safety.jinja"}, "system needs endpoint: chat"),
        ("set.yaml", {"control_tokens": ["answer"]}, "'answer' needs one of"),
        ("rewrite.yaml", {"join_words": -1}, r"rewrite\.yaml:\d+: join_words"),
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
        ("{{ candidat }}", r"safety\.jinja:1: 'candidat' is undefined: a template may use candidate"),
        ("one\ntwo {{ candidate", r"safety\.jinja:2: is not a Jinja template"),
        ("{{ candidate.__class__.__mro__ }}", r"safety\.jinja:1: the attribute '__mro__' is not allowed"),
    ],
)
def test_a_template_is_tried_when_it_is_loaded(folder: Path, template: str, message: str) -> None:
    (folder / "safety.jinja").write_text(template)
    with pytest.raises(RubricError, match=message):
        load_rubrics(str(folder))


def test_an_unknown_set_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        RubricError,
        match=r"'nan' is neither a packaged set \(instruct, nano, nano-thoughts, thoughts\) nor a file or folder",
    ):
        load_rubrics("nan")
    with pytest.raises(RubricError, match=r"holds no rubric: a set needs set\.yaml"):
        load_rubrics(str(tmp_path))
    (tmp_path / "set.yaml").write_text("description: empty")
    with pytest.raises(RubricError, match="holds no rubric; add one"):
        load_rubrics(str(tmp_path))
