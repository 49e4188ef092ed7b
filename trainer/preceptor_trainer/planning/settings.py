"""What a plan needs to know beside the training configuration. Importable without torch.

In: YAML, environment (`PRECEPTOR_PLAN_A__B=c`) and `--plan.a.b=c`. Out: frozen `PlanSettings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from preceptor_client.contract import AxisName
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.hardware import GpuName
from preceptor_trainer.planning.models import ModelSizes, read_sizes
from preceptor_trainer.section import Positive, Section, Share, Weight

ENV_PREFIX = "PRECEPTOR_PLAN_"


class AxisCost(Section):
    """The tokens of one axis' question and answer."""

    mode: Literal["pairwise", "pointwise"] = "pointwise"
    instructions: Positive = 300
    """System prompt and everything else that is the same in every question."""
    shows_prefix: bool = True
    shows_reference: bool = False
    completion: Positive = 256
    """Reasoning and verdict."""


class Estimates(Section):
    """Shares of the ideal. What is left out comes from the benchmarks' results, or is assumed."""

    shared_prefix: Share | None = None
    """Of the FLOPs that sharing the prefix saves in the update: measured speed-up over that of the FLOPs."""
    overlap: Weight | None = None
    """Seconds of a step over those of its longest stage."""
    judge_service: Share | None = None
    """Verdicts a second through the service over those of the bare engine."""
    update_mfu: Share | None = None
    """Of the GPU's FLOP/s, in the update."""
    prefill_mfu: Share | None = None
    """The same where an engine reads prompts."""
    decode_bandwidth: Share | None = None
    """Of the memory's bandwidth, where an engine writes tokens."""
    network: Weight | None = None
    """Bytes a second of one broadcast of the weights."""


class PlanSettings(Section):
    """Models, hardware, sizes."""

    gpu: GpuName = "H100"
    gpus: Positive = 64
    """All together; divided so that no pool waits long for another."""
    policy: ModelSizes | Path | None = None
    """Sizes, or a Hugging Face directory. None: `model.path`."""
    judge: ModelSizes | Path | None = None
    """The teacher that judges, and rewrites unless there is a `rewriter`. Needed if the run is judged."""
    rewriter: ModelSizes | Path | None = None
    """On GPUs of its own."""
    prefix_tokens: Positive | None = None
    """Mean length of the prefixes; None: `data.prefix_tokens`, the longest."""
    axes: dict[AxisName, AxisCost] = Field(default_factory=dict)
    """Over the packaged rubrics' sizes."""
    rewriting: AxisCost = AxisCost(instructions=360, completion=160)
    sequences: Positive = 256
    """That one replica of an engine decodes at once, if its memory has room for them."""
    estimates: Estimates = Estimates()

    def axis(self, name: str) -> AxisCost:
        """The tokens of the axis `name`."""
        return self.axes.get(name) or _PACKAGED.get(name) or AxisCost()


_PACKAGED = {
    "quality": AxisCost(mode="pairwise", instructions=300),
    "safety": AxisCost(instructions=220, shows_prefix=False, completion=160),
    "factuality": AxisCost(instructions=340, shows_reference=True),
}
"""The packaged `instruct` rubrics."""


def policy_sizes(settings: PlanSettings, config: TrainConfig) -> ModelSizes:
    """Of the policy. Raises `TrainError` if nothing tells them."""
    if settings.policy is None and not Path(config.model.path).is_dir():
        raise TrainError(
            f"the sizes of {config.model.path} are not on this machine: set plan.policy to a Hugging Face directory, "
            "or to sizes ({name, layers, hidden, heads, mlp, vocab})"
        )
    return _sizes(settings.policy or Path(config.model.path))


def teacher_sizes(settings: PlanSettings) -> ModelSizes:
    """Of the teacher that judges."""
    if settings.judge is None:
        raise TrainError("plan.judge is not set: give the judge's sizes, or its Hugging Face directory")
    return _sizes(settings.judge)


def rewriter_sizes(settings: PlanSettings) -> ModelSizes:
    """Of the teacher that rewrites."""
    return _sizes(settings.rewriter) if settings.rewriter else teacher_sizes(settings)


def _sizes(given: ModelSizes | Path) -> ModelSizes:
    return read_sizes(given) if isinstance(given, Path) else given
