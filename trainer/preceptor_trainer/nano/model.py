"""The architecture of nano models: a small Llama that transformers, vLLM and the trainer all load unchanged."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WIDTH = 128
HEAD_WIDTH = 32
"""The narrowest head that vLLM's CPU attention takes."""


def nano_llama(tokenizer: PreTrainedTokenizerFast, *, layers: int, seed: int) -> Any:
    """A freshly initialised model for `tokenizer`, about 0.16 M parameters a layer."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=WIDTH // HEAD_WIDTH,
            num_key_value_heads=WIDTH // HEAD_WIDTH,
            max_position_embeddings=512,
            # Texts have tens of words: with the usual 10,000 most of the rotations would stand still.
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            initializer_range=0.08,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.1)
    return model
