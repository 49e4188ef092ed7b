"""The policy and the documents of the timed runs: of set sizes, with nothing in them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from preceptor_trainer.config import (
    CheckpointConfig,
    JudgeConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PoolConfig,
    StalenessConfig,
    TrainConfig,
)
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.nano.tokenizer import policy_tokenizer
from preceptor_trainer.nano.world import vocabulary

_HEAD = 32


@dataclass(frozen=True)
class Sizes:
    """Of the policy and of a step."""

    width: int
    layers: int
    prefix: int
    suffix: int
    rollouts: int
    cohorts_per_step: int


def save_policy(folder: Path, sizes: Sizes) -> None:
    """A Llama with random weights over the nano world's words, in `folder`."""
    tokenizer: Any = policy_tokenizer()
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.width // _HEAD,
            max_position_embeddings=sizes.prefix + sizes.suffix,
            pad_token_id=tokenizer.pad_token_id,
            # No rollout ends early: every step samples as many tokens.
            eos_token_id=None,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    tokenizer.eos_token = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_documents(path: Path, sizes: Sizes, count: int) -> None:
    """Random words, each document one window."""
    words, rng = vocabulary(), random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps({"text": " ".join(rng.choices(words, k=sizes.prefix + sizes.suffix))}) + "\n")


def config(
    folder: Path, out: Path, sizes: Sizes, *, steps: int, limit: int, redis_url: str, namespace: str
) -> TrainConfig:
    """Online DPO on one processor a stage. The rate is so low that the policy stays what it is."""
    return TrainConfig(
        run=out.name,
        out=out,
        threads=1,
        steps=steps,
        cohorts_per_step=sizes.cohorts_per_step,
        model=ModelConfig(path=str(folder / "policy")),
        data=DataConfig(
            path=str(folder / "documents.jsonl"),
            prefix_tokens=sizes.prefix,
            min_prefix_tokens=sizes.prefix,
            suffix_tokens=sizes.suffix,
        ),
        pool=PoolConfig(original=True, rollouts=sizes.rollouts),
        judge=JudgeConfig(redis_url=redis_url, namespace=namespace, axes={"quality": 1.0}),
        objective=ObjectiveConfig(name="dpo"),
        optimizer=OptimizerConfig(lr=1e-6),
        staleness=StalenessConfig(limit=limit),
        checkpoint=CheckpointConfig(),
    )
