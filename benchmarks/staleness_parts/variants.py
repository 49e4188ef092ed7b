"""The runs that are compared: the demo's, with another objective and staleness. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from preceptor_trainer.config import ObjectiveConfig, StalenessConfig, TrainConfig
from preceptor_trainer.evaluation.nano import AXES, Comparison

BASE = "base"
_FIGURES = ("ratio", "sampler_kl", "weight", "truncated", "masked", "clipped")


@dataclass(frozen=True)
class Variant:
    """`dpo`, `dpo-ratio` (its pair weight) or `grpo-<correction>`, at a staleness: written `grpo-truncate@8`."""

    objective: str
    staleness: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        objective, at, staleness = text.partition("@")
        if not at:
            raise ValueError(f"{text}: write it as dpo@8")
        variant = cls(objective, int(staleness))
        variant.settings()
        return variant

    def __str__(self) -> str:
        return f"{self.objective}@{self.staleness}"

    def settings(self) -> ObjectiveConfig:
        """The objective: DPO as in the demo, GRPO with its defaults."""
        name, _, kind = self.objective.partition("-")
        if name == "dpo":
            return ObjectiveConfig.model_validate(
                {"name": name, "beta": 0.1, "nll_weight": 0.2, "pair_weight": kind or "none"}
            )
        return ObjectiveConfig.model_validate({"name": name, "correction": kind})

    def of(self, demo: TrainConfig) -> TrainConfig:
        """The demo's run, so changed; its judge is the one that holds answers."""
        return demo.model_copy(
            update={
                "run": str(self).replace("@", "-"),
                "out": demo.out.parent / str(self),
                "objective": self.settings(),
                "staleness": StalenessConfig(limit=self.staleness),
                "judge": demo.judge.model_copy(update={"namespace": str(self)}),
            }
        )


def seen(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Staleness as it was, and what the objective logged, over all steps."""
    return {
        "staleness": {
            "mean": fmean(line["staleness"]["mean"] for line in lines),
            "max": max(line["staleness"]["max"] for line in lines),
        },
        "steps": len(lines),
        **{name: fmean(line[name] for line in lines) for name in _FIGURES if name in lines[0]},
    }


def quality(variants: Sequence[Variant], comparison: Comparison) -> dict[str, dict[str, Any]]:
    """By variant, and of the base model: each axis, and the win rates over the base and over the same at staleness 0,
    with 95 % intervals; and each axis over the same at staleness 0.
    """
    known = {str(variant) for variant in variants}
    found: dict[str, dict[str, Any]] = {BASE: {axis: comparison.axis(BASE, axis).to_json() for axis in AXES}}
    for variant in variants:
        name, fresh = str(variant), str(Variant(variant.objective, 0))
        found[name] = {
            **{axis: comparison.axis(name, axis).to_json() for axis in AXES},
            "win_rate_vs_base": comparison.wins(name, BASE).to_json(),
        }
        if variant.staleness and fresh in known:
            found[name]["win_rate_vs_fresh"] = comparison.wins(name, fresh).to_json()
            means = {axis: (comparison.axis(name, axis).value, comparison.axis(fresh, axis).value) for axis in AXES}
            found[name]["over_fresh"] = {axis: old / new if new else 1.0 for axis, (old, new) in means.items()}
    return found


def kept(found: Mapping[str, Mapping[str, Any]], objective: str) -> float:
    """The least share of an axis at staleness 0 that the objective keeps at any other; 1 if there is none."""
    shares = [
        share
        for name, figures in found.items()
        if name.partition("@")[0] == objective
        for share in figures.get("over_fresh", {}).values()
    ]
    return min(shares, default=1.0)
