"""A tiny random policy for tests: a Llama over 60 words that vLLM can serve too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor_trainer.nano.tokenizer import policy_tokenizer

WORDS = ["<unk>", "<eos>", *(f"w{number}" for number in range(2, 60))]


def tiny_llama(seed: int = 0, *, scale: float = 0.2) -> Any:
    """Float32 on the CPU, head size 32, no end-of-text token; `scale` is the spread of its random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=scale,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()


def tiny_gpt2() -> Any:
    """Positions are learned and absolute here, so that a wrong one shows."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=32, n_layer=2, n_head=2)).eval()
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(50)
    return model


def word_tokenizer(*, eos: bool = False) -> Any:
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>" if eos else None)


def save_policy(directory: Path, *, seed: int = 0, scale: float = 0.2, eos: bool = False) -> Path:
    """Both as a Hugging Face directory."""
    tiny_llama(seed, scale=scale).save_pretrained(directory)
    word_tokenizer(eos=eos).save_pretrained(directory)
    return directory


def nano_policy() -> tuple[Any, Any]:
    """A model of the nano world's words with random weights, and its tokenizer."""
    tokenizer: Any = policy_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config), tokenizer
