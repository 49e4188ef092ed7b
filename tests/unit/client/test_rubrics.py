from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_client.contract import RubricSpec
from preceptor_client.rubrics import RubricError, load_rubric, read_spec

BREVITY = """\
axis: brevity
mode: pointwise
prompt: |
  Is this short?
  {{ candidate }}
labels: {short: 1, long: 0}
parser: final_line
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "brevity.yaml"
    path.write_text(BREVITY)
    return path


def test_a_rubric_is_one_file(file: Path) -> None:
    spec = load_rubric(file)
    assert (spec.axis, spec.mode, spec.labels) == ("brevity", "pointwise", {"short": 1.0, "long": 0.0})
    assert spec.prompt == "Is this short?\n{{ candidate }}\n"


def test_a_rubric_is_a_folder_whose_prompts_are_files(tmp_path: Path) -> None:
    (tmp_path / "rubric.yaml").write_text(
        "axis: brevity\nmode: pointwise\nprompt_file: ask.jinja\nsystem_file: who.jinja\n"
        "labels: {short: 1, long: 0}\nparser: final_line\n"
    )
    (tmp_path / "ask.jinja").write_text("Short? {{ candidate }}")
    (tmp_path / "who.jinja").write_text("You judge length.")
    spec = load_rubric(tmp_path)
    assert (spec.prompt, spec.system) == ("Short? {{ candidate }}", "You judge length.")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("mode: pointwise", "mode: sideways", r"brevity\.yaml:2: mode: .*'pointwise', 'pairwise'.*found: 'sideways'"),
        ("long: 0", "long: 7", r"brevity\.yaml:6: labels\.long: .*less than or equal to 1"),
        ("labels: {short: 1, long: 0}", "labels: {yes: 1, no: 0}", r"brevity\.yaml:6: yes: is not text to YAML"),
        ("parser: final_line", "parsr: final_line", r"brevity\.yaml:7: parsr: there is no such key"),
        ("parser: final_line", "", r"brevity\.yaml:1: parser: is missing"),
        ("mode: pointwise", "mode: pointwise\naxis: other", r"brevity\.yaml:3: axis: is given twice"),
        ("mode: pointwise", "mode: [pointwise", r"brevity\.yaml:\d: is not YAML"),
        ("prompt: |", "prompt_file: other.jinja\nprompt: |", r"brevity\.yaml:3: prompt and prompt_file are both given"),
        ("parser: final_line", "parser: final_line\nsystem_file: no.jinja", r":8: system_file: .*no\.jinja: cannot be"),
        ("parser: final_line", "parser: final_line\nsystem_file: ../x", r":8: system_file must be the name of a file"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(file: Path, before: str, after: str, message: str) -> None:
    file.write_text(BREVITY.replace(before, after))
    with pytest.raises(RubricError, match=message):
        load_rubric(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", ":1: must hold a mapping"),
        (b"", ":1: must hold a mapping"),
        (b"axis: \xff\xfe", "is not UTF-8"),
        (b"axis: &a [*a]", r":1: axis: Input should be a valid string"),
    ],
)
def test_what_is_no_rubric_at_all_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(RubricError, match=message):
        load_rubric(tmp_path / "x.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RubricError, match=r"none\.yaml: cannot be read: No such file"):
        load_rubric(tmp_path / "none.yaml")


def test_lines_of_a_text_are_found_where_they_stand(file: Path, tmp_path: Path) -> None:
    assert read_spec(file, RubricSpec).where("prompt", 2) == f"{file}:5"
    (tmp_path / "p.jinja").write_text("one\ntwo {{ candidate }}")
    file.write_text(BREVITY.replace("prompt: |\n  Is this short?\n  {{ candidate }}", "prompt_file: p.jinja"))
    assert read_spec(file, RubricSpec).where("prompt", 2) == f"{tmp_path / 'p.jinja'}:2"


def test_the_example_of_the_page_on_rubrics_holds_and_so_does_its_error(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "rubrics.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "brevity.yaml"
    path.write_text(example)
    assert load_rubric(path).axis == "brevity"
    path.write_text(example.replace("wordy: 0", "wordy: 7"))
    with pytest.raises(RubricError) as raised:
        load_rubric(path)
    assert str(raised.value).removeprefix(f"{tmp_path}/") in page
