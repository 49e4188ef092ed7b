"""Tokens that a policy does not have yet, added to its tokenizer and its embeddings.

In: a model with its tokenizer, and tokens. Out: both, changed in place, so that each token is one id of the tokenizer
and a row of the model; what is known already stays as it is. Guarantees: the same model and tokens give the same
weights, on every rank and after a resume; a checkpoint of them is a Hugging Face directory as any other. Raises
`TrainError` for what cannot be one token.

A new token is read as a word drawn at random from among the others: layers can tell it from another new one at once,
where two that begin as the mean of all words take hundreds of updates to come apart. Where what is written has rows of
its own, it begins as their mean there, and is hardly ever written.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from preceptor_trainer.codec import token_id
from preceptor_trainer.errors import TrainError


def add_tokens(model: Any, tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add those of `tokens` that are not one token to `tokenizer`."""
    new = [token for token in tokens if token_id(tokenizer, token) is None]
    if not new:
        return
    known = len(tokenizer)
    tokenizer.add_tokens(new, special_tokens=True)
    if refused := [token for token in new if token_id(tokenizer, token) is None]:
        raise TrainError(f"the policy's tokenizer does not take {refused[0]} as one token: choose another control")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _begin(model, tokenizer, new, known)


@torch.no_grad()
def _begin(model: Any, tokenizer: Any, new: Sequence[str], known: int) -> None:
    """First values of the rows of `new`, of which none is among the `known` first."""
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    bias: Tensor | None = getattr(written, "bias", None)
    for token in new:
        row = token_id(tokenizer, token)
        written.weight[row] = written.weight[:known].mean(0)
        if bias is not None:
            bias[row] = bias[:known].mean()
        # Last: the two may be one.
        read.weight[row] = _drawn(read.weight[:known], seed=zlib.crc32(token.encode()))


def _drawn(words_VH: Tensor, seed: int) -> Tensor:
    """A row with the mean and spread of `words_VH`."""
    noise_H = torch.randn(words_VH.shape[1], generator=torch.Generator().manual_seed(seed)).to(words_VH)
    return words_VH.mean(0) + words_VH.std(0) * noise_H
