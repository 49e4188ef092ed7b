"""`preceptor eval --lm-eval`: the harness itself on a tiny policy and a task of its own that needs no download."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from preceptor_trainer.cli import app
from tiny_policy import save_policy

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"), eos=True)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with the task of the docs and its documents."""
    found = re.search(r"```yaml\n# next_word.yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "next_word.yaml").write_text(found[1].replace("words.jsonl", f"{tmp_path}/words.jsonl"))
    lines = [{"text": f"w{n} w{n + 1}", "choices": [f"w{n + 2}", f"w{n + 9}"], "answer": 0} for n in range(2, 42)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_a_checkpoint_is_measured_by_the_harness_in_one_command(policy: Path, tasks: Path) -> None:
    result = run(policy, "--lm-eval", "next_word", "--include-path", tasks, "--limit=30", "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    model, right = AutoModelForCausalLM.from_pretrained(policy), 0
    for n in range(2, 32):
        with torch.inference_mode():
            logits = model(torch.tensor([[n, n + 1]])).logits[0, -1]
        right += int(logits[n + 2] > logits[n + 9])
    accuracy = shown["tasks"]["next_word"]["acc,none"]
    assert accuracy["value"] == pytest.approx(right / 30)
    assert 0 < accuracy["stderr"] < 0.1
    assert shown["samples"] == {"next_word": 30}


def test_what_the_harness_cannot_do_is_told_in_one_line(policy: Path, tasks: Path, tmp_path: Path) -> None:
    (tasks / "words.jsonl").unlink()
    endless = save_policy(tmp_path / "endless")
    for model, names, message in (
        (
            policy,
            "next_word,no_such_task",
            "lm-evaluation-harness has no task no_such_task: set --lm-eval or --include",
        ),
        (policy, "next_word", "lm-evaluation-harness: FileNotFound"),
        (endless, "next_word", f"the tokenizer of {endless} has no bos_token and no eos_token"),
    ):
        result = run(model, "--lm-eval", names, "--include-path", tasks)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.strip().splitlines()[-1].startswith(f"preceptor eval: {message}")
    result = run(policy, "--lm-eval=next_word", "--include-path=/nowhere")
    assert result.stderr.strip() == "preceptor eval: /nowhere: no such folder; set --include-path"
