"""The nano base model: next-token pretraining on the raw corpus, flaws and all.

In: a JSONL corpus. Out: a Hugging Face directory. May take a minute or two on one core.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import stream_documents
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.optimizer import NanoOptimizer
from preceptor_trainer.nano.tokenizer import policy_tokenizer

LAYERS = 3
_BATCH = 24
_IGNORED = -100


def pretrain(
    corpus: Path,
    target: Path,
    *,
    steps: int,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Trains on `steps` batches of documents drawn at random, each long enough to learn the world by heart.

    `tokenizer` is the nano world's, if none is given.
    """
    tokenizer = tokenizer or policy_tokenizer()
    model = nano_llama(tokenizer, layers=LAYERS, seed=seed)
    updates = NanoOptimizer(model, steps=steps, matrix_lr=0.02, other_lr=0.01)
    documents = [tokenizer.encode(each.text) for each in stream_documents(DataConfig(path=str(corpus)))]
    rng = random.Random(f"base-{seed}")
    for step in range(steps):
        updates.step(_loss(model, rng.sample(documents, _BATCH)))
        progress(step + 1, steps)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _loss(model: Any, documents: list[list[int]]) -> torch.Tensor:
    """Mean next-token cross-entropy."""
    width = max(map(len, documents))
    inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids in documents])
    targets = torch.tensor([ids[1:] + [_IGNORED] * (width - len(ids) + 1) for ids in documents])
    return cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)
