"""`preceptor teach` as its users meet it, on teachers that know nothing but how a verdict looks."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from byte_model import byte_policy
from preceptor_trainer.cli import app
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.start import passages
from preceptor_trainer.nano.text import CLEAN, document, text
from preceptor_trainer.nano.tokenizer import teacher_tokenizer
from preceptor_trainer.nano.world import World
from preceptor_trainer.teach.config import TeachJudge
from preceptor_trainer.teach.run import run
from preceptor_trainer.telemetry import Telemetry


def untaught(folder: Path) -> Path:
    """A nano teacher, taught for a moment that an answer is one of four words, but not which to what question."""
    tokenizer = teacher_tokenizer()
    model = nano_llama(tokenizer, layers=1, seed=0)
    verdicts = torch.tensor(tokenizer.convert_tokens_to_ids(["A", "B", "safe", "unsafe"]))
    answer = tokenizer.convert_tokens_to_ids("<answer>")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    dice = torch.Generator().manual_seed(0)
    for _ in range(40):
        prompts = torch.randint(len(tokenizer), (32, 12), generator=dice)
        prompts[:, -1] = answer
        targets = verdicts[torch.randint(4, (32,), generator=dice)]
        loss = torch.nn.functional.cross_entropy(model(prompts).logits[:, -1], targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A nano judge to be taught safety and pairs."""
    world, rng = World.generate(), random.Random("teach")
    rows = [{"text": text(document(world, rng, CLEAN, sentences=5))} for _ in range(60)]
    for name, lines in (("documents", rows), ("passages", passages(world, rng, 100))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = tmp_path / "teach.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "out": str(tmp_path / "out"),
                "steps": 40,
                "exercises_per_step": 16,
                "threads": 1,
                "model": {"path": str(untaught(tmp_path / "teacher"))},
                "rubrics": "nano",
                "data": {"path": str(tmp_path / "documents.jsonl"), "prefix_tokens": 12, "suffix_tokens": 12},
                "safety_share": 0.5,
                "safety": {"labels": str(tmp_path / "passages.jsonl"), "held_out": 0.5},
                "answers": {"count": 8, "temperature": 1.0},
                "optimizer": {"lr": 5e-4, "schedule": "constant"},
                "exam": {"windows": 12},
            }
        )
    )
    return file


def test_a_judge_is_taught_and_its_report_shows_it(config: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["teach", "judge", str(config), "--safety_share=0", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert "safety accuracy" in report["after"]
    assert (report["course"], report["steps"]) == ("judge", 40)
    for marks in (report["before"], report["after"]):
        assert {"accuracy", "right in both orders", "position flips", "completeness bias"} <= set(marks)
    before, after = ({name: mark["value"] for name, mark in report[when].items()} for when in ("before", "after"))
    assert before["without a verdict"] > 0.5
    assert after["without a verdict"] == 0
    assert after["accuracy"] > before["accuracy"] + 0.3
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    taught = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "final")
    begun = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
    assert not torch.equal(taught.lm_head.weight, begun.lm_head.weight)


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_weights(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(name: str, steps: int) -> TeachJudge:
        values = yaml.safe_load(config.read_text()) | {"out": str(tmp_path / name), "steps": steps}
        return TeachJudge.model_validate(values)

    stop, step = asyncio.Event(), Telemetry.step

    def last_step(telemetry: Telemetry, version: int, *batch: Any) -> None:
        step(telemetry, version, *batch)
        if version == 1:
            stop.set()

    assert asyncio.run(run(settings("whole", 4))) is not None
    with monkeypatch.context() as patched:
        patched.setattr(Telemetry, "step", last_step)
        assert asyncio.run(run(settings("stopped", 4), stop=stop)) is None
    assert not (tmp_path / "stopped" / "final").exists()
    assert asyncio.run(run(settings("stopped", 4), "resume")) is not None
    whole, resumed = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "final").state_dict() for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {kind for line in lines for kind in line["scores"]} == {"quality", "safety"}


def test_a_rewriter_is_taught_by_a_judge_in_the_process(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    del settings["safety_share"]
    # No labels either: the teacher's own votes, where both are the same.
    settings["safety"] = {"windows": 40, "votes": {"count": 2}}
    settings |= {"steps": 2, "grading": {"votes": {"count": 2, "temperature": 1.0}}}
    config.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["teach", "rewriter", str(config)])
    assert result.exit_code == 0, result.output
    assert "repairs preferred" in result.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"copies", "repairs safe", "repairs' faithfulness", "repairs' length"} <= set(report["after"])


@pytest.fixture
def instruct(config: Path, tmp_path: Path) -> Path:
    """A policy's checkpoint with a chat template, whose answers are noise, and an own rubric set for which noise can be
    right.
    """
    byte_policy(tmp_path / "instruct", positions=1024)
    rubrics = tmp_path / "rubrics"
    rubrics.mkdir()
    (rubrics / "set.yaml").write_text("description: One letter is enough.\n")
    for axis, mode, labels, prompt in (
        ("quality", "pairwise", {"A": 1, "B": 0}, "{{ prefix }} A {{ a }} B {{ b }}"),
        ("safety", "pointwise", {"a": 1, "b": 0}, "{{ candidate }}"),
    ):
        rubric = {"axis": axis, "mode": mode, "labels": labels, "prompt": prompt, "system": "You judge."}
        (rubrics / f"{axis}.yaml").write_text(yaml.safe_dump({**rubric, "parser": "exact", "max_tokens": 1}))
    return rubrics


def test_adapters_of_a_chat_model_are_taught_merged_and_resumed(instruct: Path, config: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    arguments = [
        *("teach", "judge", str(config), f"--model.path={tmp_path / 'instruct'}", f"--rubrics={instruct}"),
        *("--model.lora.rank=2", "--answers.count=64", "--answers.temperature=2.0", "--steps=2", "--exam.windows=3"),
        *("--optimizer.lr=0.01", "--data.suffix_tokens=48"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    final = AutoModelForCausalLM.from_pretrained(out / "final")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "instruct")
    assert set(final.state_dict()) == set(base.state_dict())
    adapted = PeftModel.from_pretrained(base, out / "final" / "adapter")
    prompt = torch.tensor([AutoTokenizer.from_pretrained(out / "final").encode("a few words")])
    with torch.inference_mode():
        expected, merged = adapted(prompt).logits, final(prompt).logits
        adapted.disable_adapter_layers()
        untaught = adapted(prompt).logits
    assert torch.allclose(merged, expected, atol=1e-5)
    assert not torch.allclose(merged, untaught, atol=1e-5)

    result = CliRunner().invoke(app, [*arguments, "--steps=3", "--resume"])
    assert result.exit_code == 0, result.output
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3


def test_what_cannot_be_taught_is_told_in_one_line(config: Path) -> None:
    for change, named in (
        ("--rubrics=instruct", "chat template"),
        ("--rubrics=none-such", "none-such"),
        ("--model.path=/none/such", "set model.path"),
        ("--data.path=/none/such.jsonl", "/none/such.jsonl"),
        ("--safety.labels=/none/such.jsonl", "safety.labels"),
        ("--data.suffix_tokens=2", "data.suffix_tokens"),
    ):
        result = CliRunner().invoke(app, ["teach", "judge", str(config), change, "--steps=1"])
        assert result.exit_code == 1, result.output
        assert named in result.stderr.splitlines()[-1]
