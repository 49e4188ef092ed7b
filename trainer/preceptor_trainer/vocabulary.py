"""Tokens that a policy does not have yet, added to its tokenizer and its embeddings.

In: a model with its tokenizer, and tokens. Out: both, changed in place, so that each token is one id of the tokenizer
and a row of the model; what is known already stays as it is. Guarantees: the same model and tokens give the same
weights, on every rank and after a resume; a checkpoint of them is a Hugging Face directory as any other. A new token
begins as the mean of all others: it says nothing yet, and is hardly ever written. Raises `TrainError` for what cannot
be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from preceptor_trainer.codec import token_id
from preceptor_trainer.errors import TrainError


def add_tokens(model: Any, tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add those of `tokens` that are not one token to `tokenizer`."""
    new = [token for token in tokens if token_id(tokenizer, token) is None]
    if not new:
        return
    known = len(tokenizer)
    tokenizer.add_tokens(new, special_tokens=True)
    for token in new:
        if token_id(tokenizer, token) is None:
            raise TrainError(f"the policy's tokenizer does not take {token} as one token: choose another for controls")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            for weights in filter(lambda each: each is not None, (layer.weight, getattr(layer, "bias", None))):
                weights[known : len(tokenizer)] = weights[:known].mean(0)
