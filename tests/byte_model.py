"""A tiny Llama with random weights whose tokens are bytes and which has a chat template: any chat rubric can be put to
it, and what it answers is noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor_trainer.checkpoint import TrainerState, rng_states, save_checkpoint
from preceptor_trainer.data.stream import Position

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def byte_tokenizer(chat_template: str = CHAT_TEMPLATE) -> Any:
    """One token a byte, and the marks of turns."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: index for index, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=chat_template,
    )


def byte_llama(tokenizer: Any, *, positions: int, **changes: Any) -> Any:
    """One layer, head size 32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **changes,
        )
    )


def byte_policy(folder: Path, *, positions: int) -> Path:
    """Such a model as a training run leaves it."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    return left_by_training(folder, byte_llama(tokenizer, positions=positions), tokenizer)


def left_by_training(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A checkpoint: with what the trainer keeps for itself beside the weights."""
    state = TrainerState("run", 1, rng_states(), 0, Position(0, 0), [], {}, {})
    moments = {name: {"exp_avg": torch.zeros_like(weight)} for name, weight in model.named_parameters()}
    save_checkpoint(folder, model, tokenizer, state, moments)
    return folder
