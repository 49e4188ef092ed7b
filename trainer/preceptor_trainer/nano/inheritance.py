"""A nano teacher that begins as a policy, instead of with random weights.

In: a teacher as it was initialised, and a policy's Hugging Face directory. Out: the teacher, changed in place. Every
word that the policy knows has the policy's embedding; the first layers and the last norm are the policy's; each layer
more adds nothing yet, as its output projections are zero. Control tokens and answers, which no policy has met, stay as
they were initialised. Guarantees: on a text of the world it computes what the policy computes. Raises `TrainError` for
what is no nano policy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from preceptor_trainer.errors import TrainError
from preceptor_trainer.pretrained import load_pretrained

_SAME = ("hidden_size", "intermediate_size", "num_attention_heads", "rope_parameters", "tie_word_embeddings")
_FILES = ("model.safetensors", "tokenizer.json")


@torch.no_grad()
def inherit(teacher: Any, words: dict[str, int], policy: Path) -> None:
    """`words` are the ids of the teacher's tokenizer."""
    model, tokenizer = load_pretrained(str(policy), "the policy", key="--policy")
    known: dict[str, int] = tokenizer.get_vocab()
    layers = len(model.model.layers)
    fits = layers <= len(teacher.model.layers) and known.keys() <= words.keys()
    if not fits or any(getattr(model.config, name, None) != getattr(teacher.config, name) for name in _SAME):
        raise TrainError(f"{policy} is no policy of the nano world: a nano teacher cannot begin as it")
    embeddings = teacher.model.embed_tokens.weight
    embeddings[[words[word] for word in known]] = model.model.embed_tokens.weight[list(known.values())]
    teacher.model.norm.load_state_dict(model.model.norm.state_dict())
    for own, given in zip(teacher.model.layers, model.model.layers, strict=False):
        own.load_state_dict(given.state_dict())
    for more in teacher.model.layers[layers:]:
        more.self_attn.o_proj.weight.zero_()
        more.mlp.down_proj.weight.zero_()


def fingerprint(policy: Path) -> str:
    """Of all that `inherit` takes from it."""
    try:
        return hashlib.sha256(b"\0".join((policy / name).read_bytes() for name in _FILES)).hexdigest()
    except OSError as error:
        raise TrainError(f"cannot read the policy {policy}: {error.strerror or error}") from None
