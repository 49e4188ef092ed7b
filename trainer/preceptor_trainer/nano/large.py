"""The nano world for a larger policy: long texts, and a policy of any size that has learned nothing yet.

In: a folder and sizes. Out: in the folder `corpus.jsonl`, `held-out.jsonl` and `policy`, a Hugging Face directory. A
text is several of the raw corpus's documents in a row, each about one person, so that a prefix of hundreds of words
says much about several people. Guarantees: those of `corpus`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.tokenizer import policy_tokenizer
from preceptor_trainer.nano.world import World

_HEAD_WIDTH = 64
_POSITIONS = 2048


@dataclass(frozen=True)
class LargeSize:
    """Of the corpus, and of the policy: about 100 M parameters as it stands."""

    texts: int = 200_000
    held_out: int = 1000
    people: int = 20
    """In a text; about 30 words each."""
    width: int = 768
    layers: int = 14


def write_large_world(folder: Path, size: LargeSize, *, seed: int = 0) -> Path:
    """Writes everything and returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_texts(folder / "corpus.jsonl", size.texts, size.people, f"large-train-{seed}")
    _write_texts(folder / "held-out.jsonl", size.held_out, size.people, f"large-held-out-{seed}")
    tokenizer = policy_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=8 * size.width // 3,
            num_hidden_layers=size.layers,
            num_attention_heads=size.width // _HEAD_WIDTH,
            max_position_embeddings=_POSITIONS,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    return folder


def _write_texts(path: Path, texts: int, people: int, name: str) -> None:
    world, rng = World.generate(), random.Random(name)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(texts):
            words = " ".join(text(document(world, rng, RAW)) for _ in range(people))
            file.write(json.dumps({"text": words}) + "\n")
