"""What the demo runs: its sizes, its folders, and the configurations of its two training runs.

Both runs see the same windows in the same order for the same number of steps, with the same optimizer; they differ in
the objective alone. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preceptor_client.contract import RepetitionGate
from preceptor_trainer.config import (
    JudgeConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PoolConfig,
    RewriteConfig,
    StalenessConfig,
    TrainConfig,
)
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.nano.labelled import MIN_PREFIX_WORDS, PREFIX_WORDS, SUFFIX_WORDS


@dataclass(frozen=True)
class DemoSize:
    """Numbers of documents, updates, and candidates."""

    pretrain_documents: int = 16_000
    pretrain_steps: int = 500
    steps: int = 200
    cohorts_per_step: int = 8
    rollouts: int = 4
    held_out: int = 600


@dataclass(frozen=True)
class DemoFolder:
    """Where everything of one demo goes."""

    root: Path

    @property
    def pretrain_corpus(self) -> Path:
        return self.root / "data" / "pretrain.jsonl"

    @property
    def train_corpus(self) -> Path:
        return self.root / "data" / "train.jsonl"

    @property
    def held_out_corpus(self) -> Path:
        return self.root / "data" / "held-out.jsonl"

    @property
    def services(self) -> Path:
        return self.root / "services"

    def run(self, name: str) -> Path:
        """The folder of the base model or of a training run."""
        return self.root / "runs" / name


def windows(corpus: Path, *, epochs: int | None = None) -> DataConfig:
    """How the demo's documents are split."""
    return DataConfig(
        path=str(corpus),
        prefix_tokens=PREFIX_WORDS,
        min_prefix_tokens=MIN_PREFIX_WORDS,
        suffix_tokens=SUFFIX_WORDS,
        epochs=epochs,
    )


def baseline(folder: DemoFolder, size: DemoSize, *, seed: int, threads: int) -> TrainConfig:
    """Next-token prediction on the originals."""
    return TrainConfig(
        run="nll",
        out=folder.run("nll"),
        seed=seed,
        threads=threads,
        steps=size.steps,
        cohorts_per_step=size.cohorts_per_step,
        model=ModelConfig(path=str(folder.run("base"))),
        data=windows(folder.train_corpus),
        objective=ObjectiveConfig(name="nll"),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=min(5, size.steps)),
    )


SAYS_NOTHING_TWICE = RepetitionGate(ngram=2, max_share=0.2, prefix=True)
"""The nano judge is blind to repetition. No clean document of the nano world fails this."""


def sip(
    folder: DemoFolder, size: DemoSize, *, seed: int, threads: int, redis_url: str, rewrite_url: str
) -> TrainConfig:
    """Self-Improving Pretraining: online DPO on what the judge prefers, all three axes rewarded together."""
    return baseline(folder, size, seed=seed, threads=threads).model_copy(
        update={
            "run": "sip",
            "out": folder.run("sip"),
            "pool": PoolConfig(original=True, rewrite=True, rollouts=size.rollouts),
            "objective": ObjectiveConfig(name="dpo", beta=0.1, nll_weight=0.2),
            # Within a pool a win rate spans about half of what the pointwise axes do.
            "judge": JudgeConfig(
                redis_url=redis_url,
                axes={"quality": 2.0, "safety": 1.0, "factuality": 1.0},
                gates=(SAYS_NOTHING_TWICE,),
            ),
            "rewrite": RewriteConfig(url=rewrite_url),
            "staleness": StalenessConfig(limit=1),
        }
    )
