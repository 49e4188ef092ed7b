"""Models in the likeness of real ones: their architecture with its peculiarities, tiny and with random weights, and a
tokenizer of bytes with their special tokens and the format of their turns. No model is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
HARMONY = "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"


@dataclass(frozen=True)
class Likeness:
    """`make` takes what all sizes share."""

    make: Callable[[dict[str, Any]], Any]
    eos: str
    bos: str | None
    specials: tuple[str, ...]
    chat_template: str

    def save(self, directory: Path) -> Path:
        """Both as a Hugging Face directory."""
        for part in self.build(positions=512):
            part.save_pretrained(directory)
        return directory

    def build(self, *, positions: int) -> tuple[Any, Any]:
        """Model and tokenizer."""
        tokenizer = self.tokenizer()
        torch.manual_seed(0)
        model = self.make(
            {
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "max_position_embeddings": positions,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": None,
            }
        )
        return model, tokenizer

    def tokenizer(self) -> Any:
        """One token a byte; where the real one puts a beginning-of-text before every text, so does this."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        inner = Tokenizer(models.BPE({sign: index for index, sign in enumerate(alphabet)}, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens(list(self.specials))
        if self.bos:
            begins = (self.bos, inner.token_to_id(self.bos))
            inner.post_processor = processors.TemplateProcessing(single=f"{self.bos} $A", special_tokens=[begins])
        return PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token=self.eos, bos_token=self.bos, chat_template=self.chat_template
        )


def _smollm2(sizes: dict[str, Any]) -> Any:
    return LlamaForCausalLM(LlamaConfig(**sizes, rope_theta=1e5, tie_word_embeddings=True))


def _qwen3(sizes: dict[str, Any]) -> Any:
    return Qwen3ForCausalLM(Qwen3Config(**sizes, rope_theta=1e6, tie_word_embeddings=True))


def _llama32(sizes: dict[str, Any]) -> Any:
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=scaled, tie_word_embeddings=True))


def _gpt_oss(sizes: dict[str, Any]) -> Any:
    return GptOssForCausalLM(
        GptOssConfig(**sizes, num_local_experts=4, num_experts_per_tok=2, sliding_window=32, tie_word_embeddings=False)
    )


_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>")
_LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_GPT_OSS = ("<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>")

LIKENESSES: dict[str, Likeness] = {
    "HuggingFaceTB/SmolLM2-135M": Likeness(
        _smollm2, "<|endoftext|>", None, ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"), CHATML
    ),
    "HuggingFaceTB/SmolLM2-360M": Likeness(
        _smollm2, "<|endoftext|>", None, ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"), CHATML
    ),
    "Qwen/Qwen3-0.6B-Base": Likeness(_qwen3, "<|endoftext|>", None, _QWEN, CHATML),
    "meta-llama/Llama-3.2-1B": Likeness(_llama32, "<|end_of_text|>", "<|begin_of_text|>", _LLAMA, LLAMA3),
    "Qwen/Qwen3-4B-Instruct-2507": Likeness(_qwen3, "<|im_end|>", None, _QWEN, CHATML),
    "Qwen/Qwen3-8B": Likeness(_qwen3, "<|im_end|>", None, _QWEN, CHATML),
    "openai/gpt-oss-20b": Likeness(_gpt_oss, "<|return|>", None, _GPT_OSS, HARMONY),
    "openai/gpt-oss-120b": Likeness(_gpt_oss, "<|return|>", None, _GPT_OSS, HARMONY),
}
"""By the name that a configuration gives."""
