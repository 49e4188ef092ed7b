"""The study of thoughts, as far as it needs no stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor_client.stack import Endpoints
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.study.thoughts.plan import STARTS, STUDY, SeedFolder, ThoughtsSize, plan_run
from preceptor_trainer.study.thoughts.results import markdown

ENDPOINTS = Endpoints("redis://here:1/0", "http://teacher", "teacher", "http://judge", "http://rewrite", ())
FOLDER = SeedFolder(Path("seed"))


def plan(name: str) -> TrainConfig:
    return plan_run(name, FOLDER, ThoughtsSize(), seed=3, threads=1, endpoints=ENDPOINTS)


@pytest.mark.parametrize("name", ["base", *STARTS])
def test_every_run_is_one_that_the_trainer_takes(name: str) -> None:
    assert TrainConfig.model_validate(plan(name).model_dump()) == plan(name)


def test_the_branches_differ_in_thoughts_alone() -> None:
    assert [variant.name for variant in STUDY.variants] == list(STARTS)
    assert Path(plan("sft-rl").model.path) == FOLDER.checkpoint("sft")
    assert Path(plan("sft").model.path) == Path(plan("next-token").model.path) == FOLDER.checkpoint("base")
    apart = {"run", "out", "model", "thoughts"}
    assert plan("rl").model_dump(exclude=apart) == plan("sft-rl").model_dump(exclude=apart)
    assert plan("rl").thoughts is None
    assert plan("sft").thoughts == plan("sft-rl").thoughts is not None
    assert plan("next-token").data == plan("sft").data


def record(variant: str, seed: int, held_out: float) -> dict[str, Any]:
    measured = {"held_out": held_out, "told": 0.5, "one_hop": 1.0, "malformed": 0.25, "thought": 9.0}
    return {
        "variant": variant,
        "seed": seed,
        "measures": {name: {"value": value, "ci95": [value, value]} for name, value in measured.items()},
        "steps": 60,
        "train_s": 10.0,
        "judge_calls": 1000,
        "at": "2026-01-01",
        "commit": "c",
        "cpu": "x",
        "cpus": 2,
        "memory_gb": 8,
    }


def test_the_table_has_a_row_for_what_is_done_in_the_order_of_the_study() -> None:
    assert "Nothing is done yet" in markdown([])
    shown = markdown([record("sft-rl", 0, 0.9), record("base", 0, 0.1), record("base", 1, 0.3)])
    rows = [line for line in shown.splitlines() if line.startswith(("| base", "| then"))]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| base model", "2", "0.200 ±1.271"],
        ["| then RL with thoughts", "1", "0.900"],
    ]
