"""From a Hugging Face directory or name to a model and its tokenizer that belong together.

Raises `TrainError`, which says what to set. May wait for the disk and, for what is not on this machine, the network.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.errors import TrainError


def load_pretrained(path: str, what: str, *, key: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model and tokenizer of `path`; errors call it `what` and name the configuration's `key`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except Exception as error:  # what a damaged folder makes transformers raise is not said anywhere
        raise TrainError(f"cannot load {what} {path}: {type(error).__name__}: {error}; set {key}") from error
    if len(tokenizer) > model.config.vocab_size:
        raise TrainError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size}: "
            "they do not belong together"
        )
    return model, tokenizer


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is a GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is cuda and torch sees no GPU: set device to cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)
