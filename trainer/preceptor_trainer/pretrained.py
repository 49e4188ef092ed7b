"""From a Hugging Face directory or name to a model and its tokenizer that belong together.

Raises `TrainError`, which says what to set. May wait for the disk and, for what is not on this machine, the network.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError


def load_pretrained(path: str, what: str, *, key: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model and tokenizer of `path`; errors call it `what` and name the configuration's `key`."""
    _, tokenizer = load_description(path, what, key=key)
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except Exception as error:  # what a damaged folder makes transformers raise is not said anywhere
        raise _cannot_load(path, what, key, error) from error
    return model, tokenizer


def load_description(path: str, what: str, *, key: str) -> tuple[Any, Any]:
    """The same without the weights: the configuration of the language model, and the tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        description = AutoConfig.from_pretrained(path).get_text_config()
    except Exception as error:  # as above
        raise _cannot_load(path, what, key, error) from error
    if len(tokenizer) > description.vocab_size:
        raise TrainError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model {description.vocab_size}: "
            "they do not belong together"
        )
    return description, tokenizer


def check_context(config: TrainConfig, description: Any) -> None:
    """Raises `TrainError` if what the run has to read is longer than the model that `description` is of can take."""
    positions = getattr(description, "max_position_embeddings", None)
    if positions is not None and config.sequence_tokens > positions:
        raise TrainError(
            f"{config.sequence_keys} is {config.sequence_tokens}, {config.model.path} takes {positions} tokens: "
            "lower one of them"
        )


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is a GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is cuda and torch sees no GPU: set device to cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def _cannot_load(path: str, what: str, key: str, error: Exception) -> TrainError:
    return TrainError(f"cannot load {what} {path}: {type(error).__name__}: {error}; set {key}")
