"""What the study of thoughts runs: its sizes, its folders, and its training runs, some of which go on from others.

    base --+--> next-token --> rl            no thoughts
           +--> sft ---------> sft-rl        thoughts

Both branches see the same windows in the same order for as many steps. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor_client.contract import Origin
from preceptor_client.stack import Endpoints
from preceptor_trainer.config import (
    CheckpointConfig,
    JudgeConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PoolConfig,
    RewriteConfig,
    ThoughtsConfig,
    TrainConfig,
)
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.nano.hops.facts import PREFIX_WORDS, SUFFIX_WORDS, THOUGHT_WORDS
from preceptor_trainer.study.definition import BASE, Study, Variant

_DELIMITERS = 2
_SPARE_TOKENS = 3
"""A thought may be a little longer than it has to be."""


@dataclass(frozen=True)
class ThoughtsSize:
    """Numbers of documents, updates, candidates, and questions of each kind."""

    pretrain_documents: int = 8000
    pretrain_steps: int = 600
    documents: int = 4000
    steps: int = 100
    """Of next-token prediction and of SFT."""
    rl_steps: int = 30
    """Few: cohorts that are right every time tie, and the better the policy, the longer a step looks for others."""
    cohorts_per_step: int = 16
    rollouts: int = 8
    questions: int = 400


TINY = ThoughtsSize(
    pretrain_documents=500, pretrain_steps=100, documents=200, steps=25, rl_steps=2, cohorts_per_step=8, questions=24
)
"""Shows that the study runs, not what comes of it: enough for some thoughts to be well formed, some answers right."""

STUDY = Study(
    name="thoughts",
    title="Thoughts",
    question=(
        "Does it pay to let a policy think before it goes on? `the boss of alice is good at` asks for what is true of "
        "the person in between, whom a thought can name. All go on from the same base model, which knows every single "
        "hop, over the same windows. Of the people held out nothing at two hops is ever said: there nothing can be "
        "learned by heart."
    ),
    found=(
        "It does. Without thoughts a policy learns by heart what it is told, RL sharpens that, and of the people held "
        "out it knows hardly more than before. With thoughts it combines what it knows, and RL, which asks about those "
        "told of alone, adds to that in every seed, also for people held out. The price is single hops, where no "
        "thought is needed: all were known, and some are missed now."
    ),
    takes="about 7 minutes for 3 seeds on 2 cores",
    variants=(
        Variant(name="next-token", about="next-token, same data"),
        Variant(name="rl", about="then RL, no thoughts"),
        Variant(name="sft", about="SFT with thoughts"),
        Variant(name="sft-rl", about="then RL with thoughts"),
    ),
)
STARTS = {"next-token": BASE.name, "rl": "next-token", "sft": BASE.name, "sft-rl": "sft"}
"""Run -> the one that it goes on from."""

_WITH_THOUGHTS = {"thoughts": ThoughtsConfig(max_tokens=THOUGHT_WORDS + _DELIMITERS + _SPARE_TOKENS)}
_NEXT_TOKEN = {"objective": ObjectiveConfig(name="nll")}
_SFT = {
    "objective": ObjectiveConfig(name="nll", target=Origin.REWRITE),
    "pool": PoolConfig(original=False, rewrite=True),
}


@dataclass(frozen=True)
class SeedFolder:
    """Where everything of one seed goes."""

    root: Path

    @property
    def pretrain_corpus(self) -> Path:
        return self.root / "data" / "pretrain.jsonl"

    @property
    def questions(self) -> Path:
        return self.root / "data" / "questions.jsonl"

    def run(self, name: str) -> Path:
        """The folder of a training run."""
        return self.root / "runs" / name

    def checkpoint(self, name: str) -> Path:
        """What came of it; of the base model too."""
        return self.run(name) if name == BASE.name else self.run(name) / "final"

    def result(self, name: str) -> Path:
        """What was measured of it; there when the run is done."""
        return self.root / "results" / f"{name}.json"


def plan_run(
    name: str, folder: SeedFolder, size: ThoughtsSize, *, seed: int, threads: int, endpoints: Endpoints
) -> TrainConfig:
    """The run `name`; the base model's are the windows and the length of answers by which it is measured."""
    rl = name in ("rl", "sft-rl")
    steps = size.rl_steps if rl else size.steps
    by_reward: Mapping[str, Any] = {
        "objective": ObjectiveConfig(name="grpo", normalize_std=False),
        "pool": PoolConfig(original=False, rollouts=size.rollouts),
    }
    return TrainConfig(
        run=name,
        out=folder.run(name),
        seed=seed,
        threads=threads,
        steps=steps,
        cohorts_per_step=size.cohorts_per_step,
        model=ModelConfig(path=str(folder.checkpoint(STARTS.get(name, BASE.name)))),
        data=DataConfig(
            path=str(folder.questions),
            prefix_tokens=PREFIX_WORDS,
            min_prefix_tokens=PREFIX_WORDS,
            suffix_tokens=SUFFIX_WORDS,
        ),
        judge=JudgeConfig(redis_url=endpoints.redis_url, axes={"match": 1.0}),
        rewrite=RewriteConfig(url=endpoints.rewrite_url),
        optimizer=OptimizerConfig(lr=1e-3 if rl else 2e-3, warmup_steps=min(5, steps)),
        checkpoint=CheckpointConfig(every=max(1, steps // 4), keep=1),
        **(by_reward if rl else _SFT if name == "sft" else _NEXT_TOKEN),
        **(_WITH_THOUGHTS if name in ("sft", "sft-rl") else {}),
    )
