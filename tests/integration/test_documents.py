"""The commands of the documents that need no more than a stack, as they stand there, on the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pages import ROOT, block_lines, blocks
from preceptor_client.stack import Stack, judge_part, rewrite_part

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
DOCS = ROOT / "docs"
RUN = ("preceptor judge", "preceptor rewrite", "preceptor rubrics", "preceptor keys", "preceptor plan")
POLICY = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "model_type": "llama",
}
DRY = ("preceptor train", "preceptor teach judge", "preceptor teach rewriter")


def lines(*prefixes: str) -> list[str]:
    """Each command once, as it stands, of those that begin so."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [line for page in pages for block in blocks(page) for line in block_lines(block)]
    return list(dict.fromkeys(line.split(" #")[0].strip() for line in found if line.startswith(prefixes)))


@pytest.fixture(scope="module")
def desk(
    teacher_vllm: TeacherServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the files that the documents speak of, and the environment in which their commands run."""
    folder = tmp_path_factory.mktemp("desk")
    store = [f"--store.url={redis_url}", f"--store.namespace={folder.name}"]
    for name in ("configs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    (harmless,) = blocks(DOCS / "tutorial.md", "yaml")
    (folder / "harmless.yaml").write_text(harmless)
    # The nano teacher knows no chat and cannot answer the brevity of rubrics.md: here it is asked what it can.
    (folder / "brevity.yaml").write_text(harmless.replace("axis: harmless", "axis: brevity"))
    cohort = {"prefix": "alice lives in", "candidates": ["paris .", "oslo ."]}
    (folder / "cohorts.jsonl").write_text(json.dumps(cohort) + "\n")
    (folder / "suffixes.jsonl").write_text(json.dumps({"prefix": "alice lives in", "suffix": "paris ."}) + "\n")
    policy = folder / "runs" / "sip" / "final"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text(json.dumps(POLICY))
    teacher = (folder / "services", teacher_vllm.url, teacher_vllm.model)
    with Stack() as stack:  # and not the session's: a judge with a store goes on asking Redis
        judge = stack.start(judge_part(*teacher, overrides=store)).part.url
        rewrite = stack.start(rewrite_part(*teacher)).part.url
        yield folder, {"PRECEPTOR_JUDGE_URL": judge or "", "PRECEPTOR_REWRITE_URL": rewrite or ""}


def run(command: str, desk: tuple[Path, dict[str, str]]) -> subprocess.CompletedProcess[str]:
    folder, environment = desk
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [line for line in lines(*RUN) if "texts.jsonl" not in line])
def test_a_command_of_the_documents_does_what_it_says(command: str, desk: tuple[Path, dict[str, str]]) -> None:
    done = run(command, desk)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [line for line in lines(*DRY) if "--resume" not in line])
def test_a_training_command_of_the_documents_resolves(command: str, desk: tuple[Path, dict[str, str]]) -> None:
    done = run(command if "--dry-run" in command else f"{command} --dry-run", desk)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tutorials_ten_texts_are_judged_by_its_rubric(desk: tuple[Path, dict[str, str]]) -> None:
    (judging,) = (block for block in blocks(DOCS / "tutorial.md") if "texts.jsonl" in block)
    done = run(judging, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in (desk[0] / "scores.jsonl").read_text().splitlines()]
    verdicts = [[verdict["score"] for verdict in answer["response"]["verdicts"]] for answer in answers]
    assert verdicts == [[1.0, 0.0]] * 5


def test_the_tutorials_python_judges_by_the_same_rubric(desk: tuple[Path, dict[str, str]]) -> None:
    judging, _ = blocks(DOCS / "tutorial.md", "python")
    (desk[0] / "judging.py").write_text(judging)
    done = run("python judging.py", desk)
    assert done.stdout.splitlines() == ["she owns a young cat . ok 1.0", "she should be beaten . ok 0.0"], done.stderr


def test_the_tutorials_new_model_can_be_trained_on_a_folder_of_texts(desk: tuple[Path, dict[str, str]]) -> None:
    folder, _ = desk
    (folder / "my-texts").mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        (folder / "my-texts" / f"{page.stem}.txt").write_text(page.read_text(encoding="utf-8"))
    _, new_model = blocks(DOCS / "tutorial.md", "python")
    (folder / "new_model.py").write_text(new_model)
    (training,) = (line for line in lines("preceptor train configs/baseline.yaml") if "new-model" in line)
    made = run("python new_model.py", desk)
    assert made.returncode == 0, made.stderr
    trained = run(f"{training} --steps=2 --optimizer.warmup_steps=1", desk)
    assert trained.returncode == 0, trained.stderr
    assert (folder / "runs" / "baseline" / "final" / "config.json").is_file()
