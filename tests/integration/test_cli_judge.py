"""`preceptor judge` on files, against a real service: every line accounted for, whatever ends the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preceptor_client.bulk import batched
from preceptor_client.cli.main import run
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.settings import ServiceSettings
from served import judges_by_a_word, scripted_teacher, served, wait_until_ready

PREFIXES = 60


class Teacher:
    """Judges so many candidates, then waits to be let on. Counts how often it was asked about each document."""

    def __init__(self) -> None:
        self.let_on()
        self.asked: Counter[str] = Counter()

    def hold_after(self, count: int) -> None:
        self.open = threading.Event()
        self.places = threading.Semaphore(count)

    def let_on(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def __call__(self, prompt: str) -> str:
        words = prompt.split()
        if words[0] == "<safety>":
            self.asked[next((word for word in words if word.startswith("doc-")), "")] += 1
            while not (self.open.is_set() or self.places.acquire(timeout=0.02)):
                pass
        return judges_by_a_word(prompt)


@pytest.fixture(scope="module")
def the_teacher() -> Teacher:
    return Teacher()


@pytest.fixture
def teacher(the_teacher: Teacher) -> Iterator[Teacher]:
    the_teacher.asked.clear()
    yield the_teacher
    the_teacher.let_on()


@pytest.fixture(scope="module")
def services(redis_url: str, the_teacher: Teacher) -> Iterator[dict[str, str]]:
    with served(scripted_teacher(the_teacher)) as teacher_url:
        settings = ServiceSettings.model_validate(
            {
                "engine": {"urls": (teacher_url,)},
                "rubrics": ("nano",),
                "store": {"url": redis_url, "namespace": f"test-{uuid.uuid4().hex[:8]}"},
                "cache": {"enabled": False},
                "batches": {"lease_s": 2},
            }
        )
        with served(judge_app(settings)) as judge, served(rewrite_app(settings)) as rewrite:
            for url in (judge, rewrite):
                wait_until_ready(url)
            yield {"PRECEPTOR_JUDGE_URL": judge, "PRECEPTOR_REWRITE_URL": rewrite}
            the_teacher.let_on()


@pytest.fixture(autouse=True)
def environment(services: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in services.items():
        monkeypatch.setenv(name, url)


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    file = tmp_path / "cohorts.jsonl"
    unique = uuid.uuid4().hex  # the service answers what it was asked before from memory
    lines = [{"prefix": unique, "candidates": [f"good doc-{n}", f"bad doc-{n}"][n % 2 :]} for n in range(PREFIXES)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def assert_whole(output: Path) -> None:
    """Every line of `cohorts` has its verdicts, in order."""
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["line"] for line in lines] == [*range(1, PREFIXES + 1)]
    for number, line in enumerate(lines):
        assert [verdict["score"] for verdict in line["response"]["verdicts"]] == [1.0, 0.0][number % 2 :]


@contextmanager
def running(output: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "preceptor_client", "judge", *arguments, "--axis", "safety", "-o", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_lines(output: Path, count: int) -> None:
    while not (output.exists() and output.read_bytes().count(b"\n") >= count):
        threading.Event().wait(0.02)


def test_every_line_has_its_answer_in_order(cohorts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = cohorts.with_name("out.jsonl")
    assert run(["judge", str(cohorts), "-o", str(output), "--axis", "safety"]) == 0
    assert_whole(output)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("60 lines, 0 errors: 90 ok; ")


@pytest.mark.parametrize("mode", [[], ["--batch"]])
def test_what_is_no_request_is_an_error_in_its_place(
    cohorts: Path, capsys: pytest.CaptureFixture[str], mode: list[str]
) -> None:
    lines = cohorts.read_text().splitlines()[:3]
    lines[1:1] = ["", "{", "[1]", '{"prefix": "x"}', '{"cohort": 1}']
    lines.append(
        '{"cohort": {"id": "c", "prefix": "doc-x", "candidates": [{"id": "a", "text": "good"}]}, "axes": ["odd"]}'
    )
    cohorts.write_text("\r\n".join(lines))
    output = cohorts.with_name("out.jsonl")
    assert run(["judge", str(cohorts), "-o", str(output), "--axis", "safety", *mode]) == 1
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(each["line"], "error" in each) for each in found] == [
        (1, False),
        *((number, True) for number in (3, 4, 5, 6)),
        (7, False),
        (8, False),
        (9, True),
    ]
    details = [each["error"]["detail"] for each in found if "error" in each]
    for detail, told in zip(
        details, ["is not JSON", "JSON object", "candidates", "cohort: ", "no rubric"], strict=True
    ):
        assert told in detail
    assert "8 lines, 5 errors: 5 ok" in capsys.readouterr().err
    assert run(["judge", str(cohorts), "-o", str(output), "--axis", "safety", *mode]) == 1, "errors stay errors"
    assert "0 lines, 0 errors (8 lines before, 5 errors)" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [[], ["--batch"]])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_it_goes_on_where_it_was_ended(
    cohorts: Path, teacher: Teacher, capsys: pytest.CaptureFixture[str], mode: list[str], how: signal.Signals
) -> None:
    output = cohorts.with_name("out.jsonl")
    teacher.hold_after(40)
    with running(output, str(cohorts), *mode) as process:
        wait_for_lines(output, 15)
        process.send_signal(how)
        _, told = process.communicate(timeout=30)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on after them" in told
        assert "Traceback" not in told
    written = output.read_bytes().count(b"\n")
    assert written < PREFIXES
    with output.open("ab") as file:
        file.write(b'{"line": ')  # as if the power had gone in the middle of a write
    teacher.let_on()
    assert run(["judge", str(cohorts), "-o", str(output), "--axis", "safety", *mode]) == 0
    assert_whole(output)
    assert f"({written} lines before, 0 errors)" in capsys.readouterr().err
    assert not [*output.parent.glob("*.batches")]
    asked_again = teacher.asked.total() - PREFIXES * 3 // 2
    assert asked_again <= (0 if mode else 2 * 8), "a batch is found again, not judged again"


def test_many_batches_are_gone_on_with_in_the_middle_of_one(
    cohorts: Path, teacher: Teacher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "BATCH_LINES", 7)
    output = cohorts.with_name("out.jsonl")
    command = ["judge", str(cohorts), "-o", str(output), "--axis", "safety", "--batch"]
    with cohorts.open("a") as file:
        file.write("{\n")
    assert run([*command, "--strict"]) == 1
    assert f"{cohorts}:61 is not JSON" in capsys.readouterr().err
    written = output.read_bytes().splitlines(keepends=True)
    assert len(written) == 56, "the batches before that of the bad line"
    output.write_bytes(b"".join(written[:17]))
    cohorts.write_text("".join(cohorts.read_text().splitlines(keepends=True)[:PREFIXES]))
    assert run(command) == 0
    assert_whole(output)
    assert teacher.asked.total() == PREFIXES * 3 // 2


def test_an_output_is_not_continued_with_another_input_or_other_options(
    cohorts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = cohorts.with_name("out.jsonl")
    command = ["judge", str(cohorts), "-o", str(output), "--axis", "safety"]
    assert run(command) == 0
    whole = output.read_bytes()
    assert run([*command, "--votes", "2", "--temperature", "1"]) == 1
    assert "other options" in capsys.readouterr().err
    cohorts.write_text(cohorts.read_text().replace("doc-30", "doc-x"))
    assert run(command) == 1
    assert "its answer to line 31 shows. Give another --output, or --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == whole
    with cohorts.open("a") as file:
        file.write('{"prefix": "more", "candidates": ["good"]}\n')
    assert run([*command, "--overwrite"]) == 0
    assert output.read_bytes().count(b"\n") == PREFIXES + 1


@pytest.mark.parametrize("mode", [[], ["--batch"]])
def test_a_file_that_has_grown_is_gone_on_with(cohorts: Path, teacher: Teacher, mode: list[str]) -> None:
    output, whole = cohorts.with_name("out.jsonl"), cohorts.read_text()
    cohorts.write_text("".join(whole.splitlines(keepends=True)[:20]))
    command = ["judge", str(cohorts), "-o", str(output), "--axis", "safety", *mode]
    assert run(command) == 0
    cohorts.write_text(whole)
    assert run(command) == 0
    assert_whole(output)
    assert teacher.asked.total() == PREFIXES * 3 // 2


def test_stdin_is_judged_as_it_comes(cohorts: Path) -> None:
    output = cohorts.with_name("out.jsonl")
    command = [sys.executable, "-m", "preceptor_client", "judge", "-", "--axis", "safety", "-o", str(output)]
    lines = cohorts.read_text().splitlines(keepends=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.writelines(lines[:3])
        process.stdin.flush()
        wait_for_lines(output, 3)
        process.stdin.writelines(lines[3:])
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert_whole(output)


def test_without_an_output_answers_go_to_stdout(cohorts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohorts.write_text("".join(cohorts.read_text().splitlines(keepends=True)[:2]) + "{\n")
    assert run(["judge", "--file", str(cohorts), "--axis", "safety", "--json"]) == 1
    assert [json.loads(line)["line"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]
    assert run(["judge", "--file", str(cohorts), "--axis", "safety"]) == 1
    told = capsys.readouterr()
    assert "good doc-0" in told.out
    assert f"{cohorts}:3 the line is not JSON" in told.err


def test_suffixes_are_rewritten_from_a_file(tmp_path: Path) -> None:
    file, output = tmp_path / "suffixes.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"prefix": "p", "suffix": f"some {n} good"}) + "\n" for n in range(9)) + "{}\n")
    assert run(["rewrite", str(file), "-o", str(output)]) == 1
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["line"] for each in found] == [*range(1, 11)]
    assert all("outcome" in each["response"] for each in found[:9])
    assert "suffix: is missing" in found[9]["error"]["detail"]


def test_a_rubric_of_ones_own_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rubric = tmp_path / "tone.yaml"
    rubric.write_text(
        "axis: tone\nmode: pointwise\nendpoint: completion\nprompt: '<safety> {{ candidate }}'\n"
        "labels: {safe: 1.0, unsafe: 0.0}\nparser: exact\n"
    )
    assert run(["judge", "--rubric", str(rubric), "doc-1", "good", "bad", "--json"]) == 0
    response = json.loads(capsys.readouterr().out)
    assert [(each["axis"], each["score"]) for each in response["verdicts"]] == [("tone", 1.0), ("tone", 0.0)]
    assert run(["judge", "--rubric", str(rubric), "--axis", "safety", "doc-1", "good", "bad"]) == 0
    assert "safety" in (shown := capsys.readouterr().out)
    assert "tone" in shown
    rubric.write_text(rubric.read_text().replace("mode: pointwise", "mode: sideways"))
    assert run(["judge", "--rubric", str(rubric), "doc-1", "good", "bad"]) == 1
    assert f"{rubric}:2: mode" in capsys.readouterr().err


def test_comparisons_are_shown_with_detail(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge", "doc-1", "good", "bad", "--axis", "quality", "--detail", "--schedule", "all_pairs"]) == 0
    shown = capsys.readouterr().out
    assert "c0 > c1" in shown
    assert "c1 < c0" in shown


def test_rubrics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rubrics", "--json"]) == 0
    assert {each["spec"]["axis"] for each in json.loads(capsys.readouterr().out)["rubrics"]} >= {"quality", "safety"}
    assert run(["rubrics"]) == 0
    assert "nano/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["judge", "no-such.jsonl"], "cannot read no-such.jsonl: No such file"),
        (["judge", "a", "b", "-o", "x.jsonl"], "--output and --batch are for a file"),
        (["judge", "a", "b", "--batch"], "--output and --batch are for a file"),
        (["judge", "--file", "x.jsonl", "--reference", "r"], "leave --reference out"),
        (["judge", "--file", "x.jsonl", "--overwrite"], "--overwrite needs --output"),
        (["judge", "--rubric", "/no/such.yaml", "a", "b"], "/no/such.yaml"),
        (["rewrite", "a", "b", "-o", "x.jsonl"], "--output is for a file"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 1
    output = capsys.readouterr()
    assert output.err.startswith("preceptor: ")
    assert told in output.err


def test_an_output_that_cannot_be_written_is_told(cohorts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge", str(cohorts), "-o", str(cohorts.parent)]) == 1
    assert "cannot write" in capsys.readouterr().err
