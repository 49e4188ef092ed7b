"""Tiny real models for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 60


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[[int], Any]:
    """`tiny_llama(seed)`: a random Llama with a vocabulary of 60, on the CPU, in float32."""

    def build(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=64,
                initializer_range=0.2,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
            )
        ).eval()

    return build
