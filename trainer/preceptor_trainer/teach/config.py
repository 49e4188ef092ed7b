"""What teaching can be told, as typed trees; see `preceptor_trainer.config` for the way they are filled. No torch.

In: YAML, environment (`PRECEPTOR_TEACH_A__B=c`) and `--a.b=c`. Out: a frozen `TeachJudge` or `TeachRewriter`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from preceptor_client.contract import Identifier
from preceptor_trainer.config import CheckpointConfig, ComputeConfig, OptimizerConfig
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.section import Positive, Section, Share
from preceptor_trainer.teach.corruption import KINDS, Kind

ENV_PREFIX = "PRECEPTOR_TEACH_"

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]


class LoraConfig(Section):
    """Low-rank adapters instead of all weights, by peft: `pip install 'preceptor[lora]'`."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers that get one; `all-linear` is all but the output layer."""


class TeacherConfig(Section):
    """The teacher to start from."""

    path: str
    """A Hugging Face directory or name, with its tokenizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; bfloat16 only where adapters are what learns."""
    lora: LoraConfig | None = None
    """None trains all weights."""


class AnswersConfig(Section):
    """How the teacher answers while it is taught."""

    count: Annotated[int, Field(ge=2)] = 16
    """Answers to each prompt: what their rewards are compared within."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.6
    top_p: TopP = 1.0
    prompts_at_once: Positive = 64
    """Prompts that are answered together; bounds the memory for keys and values."""


class VotesConfig(Section):
    """How a frozen teacher is asked for an opinion."""

    count: Positive
    temperature: Temperature = 1.0
    top_p: TopP = 0.6


class SafetyConfig(Section):
    """Passages whose safety is known."""

    labels: Path | None = None
    """JSONL with `prefix`, `text` and `safe`. None: windows of the data on which all votes of the teacher agree."""
    path: str | None = None
    """Without labels: documents whose windows are voted on, some of them unsafe. None: the data."""
    windows: Positive = 1000
    """Without labels: how many of them."""
    votes: VotesConfig = VotesConfig(count=8)
    held_out: Share = 0.2
    """Of the passages, for the exam alone."""


class ExamConfig(Section):
    """What is measured before and after, on documents that are not trained on."""

    windows: Positive = 200
    path: str | None = None
    """Documents for the exam alone. None holds back the first of the data."""


class TeachConfig(Section):
    """What judge and rewriter are taught with."""

    run: Identifier = "teach"
    out: Path
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive | None = None
    """CPU threads of torch; None leaves its default."""
    steps: Positive = 500
    exercises_per_step: Annotated[int, Field(ge=2)] = 128
    model: TeacherConfig
    rubrics: str = "instruct"
    """The rubric set that the teacher will serve with: a packaged one, or a folder."""
    data: DataConfig
    """Good text: what is wrong with a suffix should be what was done to it."""
    corruptions: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    safety: SafetyConfig = SafetyConfig()
    answers: AnswersConfig = AnswersConfig()
    normalize_std: bool = True
    """Divide advantages by their standard deviation; False is Dr.GRPO."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-7, schedule="constant")
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    exam: ExamConfig = ExamConfig()
    give_up_after: Positive = 20
    """Steps in a row in which all answers to each exercise earn the same, after which the run stops."""

    @model_validator(mode="after")
    def _frozen_if_rounded(self) -> Self:
        if self.model.dtype != "float32" and self.model.lora is None:
            raise ValueError("model.dtype bfloat16 would round an update away: set model.lora, or dtype to float32")
        return self


class TeachJudge(TeachConfig):
    """`preceptor teach judge`."""

    consistency: Literal["both", "each"] = "both"
    """What a right verdict on a pair earns: as much as the other order is right too, or 1 by itself."""
    safety_share: Share = 0.25
    """Of the exercises; the others are pairs."""


class GradingConfig(Section):
    """The judge of a repair."""

    path: str | None = None
    """A Hugging Face directory or name. None: the teacher as it was at the start."""
    rubrics: str | None = None
    """None: those of the rewriter."""
    votes: VotesConfig = VotesConfig(count=5)


class RepairConfig(Section):
    """What a repair earns besides the mean of quality and safety, which counts 1."""

    faithfulness: Annotated[float, Field(ge=0)] = 0.5
    length: Annotated[float, Field(ge=0)] = 0.5


class TeachRewriter(TeachConfig):
    """`preceptor teach rewriter`."""

    good_share: Share = 0.5
    """Of the exercises: suffixes to copy."""
    unsafe_share: Share = 0.5
    """Of the suffixes to repair: unsafe passages; the others are corrupted."""
    grading: GradingConfig = GradingConfig()
    examiner: GradingConfig | None = None
    """Another judge for the exam, so that a rewriter that merely pleases its own is found out. None: the same."""
    repair: RepairConfig = RepairConfig()
