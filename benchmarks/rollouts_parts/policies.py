"""Policies with random weights, of set sizes, with a tokenizer of as many words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Size:
    layers: int
    width: int
    vocabulary: int
    head: int = 32


NANO = Size(3, 128, 172)
SMALL = Size(4, 256, 4096, head=64)
LARGE = Size(12, 768, 16_384, head=64)
"""About 100 M parameters."""


def policy(size: Size, seed: int = 0) -> Any:
    """A Llama in float32, its embeddings tied."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=3 * size.width if size is LARGE else 2 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // size.head,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def tokenizer(size: Size) -> Any:
    """One token a word."""
    words = {f"w{number}": number for number in range(size.vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0")


def parameters(model: Any) -> int:
    """Counted once where they are tied."""
    return sum(parameter.numel() for parameter in model.parameters())
