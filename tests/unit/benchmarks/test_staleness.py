"""The variants that are compared, and what is made of their readings."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.staleness import VARIANTS, tables
from benchmarks.staleness_parts.variants import Variant, kept, quality, seen
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, sip
from preceptor_trainer.evaluation.nano import Comparison
from preceptor_trainer.nano.oracle import Oracle
from preceptor_trainer.nano.world import World


def test_a_variant_is_the_demo_but_for_its_objective_and_staleness(tmp_path: Path) -> None:
    size = DemoSize()
    demo = sip(DemoFolder(tmp_path), size, seed=3, threads=1, redis_url="redis://r", rewrite_url="http://w")
    variant = Variant.parse("grpo-truncate@8")
    changed = variant.of(demo)
    assert (changed.objective.name, changed.objective.correction) == ("grpo", "truncate")
    assert changed.staleness.limit == 8
    same = {"run", "out", "objective", "staleness", "judge"}
    assert changed.model_dump(exclude=same) == demo.model_dump(exclude=same)
    assert changed.judge.axes == demo.judge.axes
    assert Variant.parse("dpo@0").of(demo).objective == demo.objective


@pytest.mark.parametrize("text", ["dpo", "dpo@x", "grpo-better@8", "grpo@1", "dpo-often@2"])
def test_a_variant_that_there_is_none_of_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"dpo@8|int|correction|pair_weight"):
        Variant.parse(text)


def test_staleness_seen_is_that_of_the_steps() -> None:
    lines = [
        {"staleness": {"mean": 0.0, "max": 0}, "ratio": 1.0},
        {"staleness": {"mean": 1.5, "max": 2}, "ratio": 3.0},
    ]
    assert seen(lines) == {"staleness": {"mean": 0.75, "max": 2}, "steps": 2, "ratio": 2.0}


def test_what_is_kept_is_the_worst_axis_over_the_same_objective_at_staleness_0() -> None:
    oracle = Oracle(World.generate())
    prefix = "laura has a house in cairo ."
    good, bad = "laura owns a young dog .", "we should all attack her ."
    read = {name: [oracle.read(prefix, text) for text in texts] for name, texts in {
        "base": [bad, bad], "dpo@0": [good, good], "dpo@8": [good, bad],
    }.items()}  # fmt: skip
    variants = [Variant.parse(text) for text in ("dpo@0", "dpo@8")]
    found = quality(variants, Comparison(read))
    assert "over_fresh" not in found["dpo@0"]
    assert kept(found, "dpo") == pytest.approx(min(found["dpo@8"]["over_fresh"].values()))
    assert kept(found, "dpo") < 1
    assert kept(found, "grpo-decoupled") == 1
    assert found["dpo@8"]["win_rate_vs_fresh"]["value"] < 0.5
    measured = {"dpo@0": {"staleness": {"mean": 0.0, "max": 0}}, "dpo@8": {"staleness": {"mean": 7.5, "max": 8}}}
    result = {
        "sizes": {"held_out": 2, "steps": 1, "cohorts_per_step": 8, "rollouts": 4},
        "runs": {name: {**figures, **measured.get(name, {})} for name, figures in found.items()},
    }
    scored, logged = tables(result)
    assert [row[0] for row in scored.rows] == ["base", "dpo@0", "dpo@8"]
    assert [row[0] for row in logged.rows] == ["dpo@0", "dpo@8"]


def test_every_default_run_has_one_at_staleness_0_to_be_compared_with() -> None:
    variants = [Variant.parse(text) for text in VARIANTS]
    fresh = {variant.objective for variant in variants if not variant.staleness}
    assert {variant.objective for variant in variants} == fresh
