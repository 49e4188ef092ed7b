from __future__ import annotations

import random
from typing import Any

import pytest

from preceptor_trainer.demo.report import MODELS, Findings
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.nano import Comparison
from preceptor_trainer.nano.oracle import Oracle
from preceptor_trainer.nano.teacher import TeacherAccuracy
from preceptor_trainer.nano.text import CLEAN, RAW, continuation, document, text
from preceptor_trainer.nano.world import World


@pytest.fixture(scope="session")
def findings() -> Findings:
    """Those of a demo in which SIP writes clean texts and the others raw ones."""
    world, rng = World.generate(), random.Random(0)
    generations: dict[str, list[Generation]] = {model: [] for model in MODELS}
    for _ in range(60):
        doc = document(world, rng, RAW, sentences=8)
        original = text(doc[12:28])
        for model, of_model in generations.items():
            suffix = continuation(world, doc, 12, rng, CLEAN if model == "sip" else RAW, 16)
            of_model.append(Generation(text(doc[:12]), original, text(suffix)))
    metrics = [metrics_line(step, rewrites=10 - step // 4, rollouts=step // 4) for step in range(1, 41)]
    return Findings(
        accuracy=TeacherAccuracy(
            quality=0.95, safety=0.99, factuality=0.97, copies=0.93, position_consistency=0.965432
        ),
        comparison=Comparison.read(Oracle(world), generations),
        generations=generations,
        metrics=metrics,
        summary={
            "judge": {"calls": 900, "abstained": 3, "failed": 2, "tokens": 45_000, "verdicts": 700, "cohorts": 40},
            "trained": {"steps": 40},
        },
        wall_s=412.34567,
        stages_s={"services": 61.01, "evaluation": 9.99},
    )


def metrics_line(step: int, **chosen: int) -> dict[str, Any]:
    """What the reports read of a line of `metrics.jsonl`; `chosen` counts by origin, in the plural."""
    rising = {axis: {"rollout": step / 40, "all": 0.5} for axis in ("quality", "safety", "factuality")}
    return {"step": step, "scores": rising, "chosen": {origin.removesuffix("s"): n for origin, n in chosen.items()}}
