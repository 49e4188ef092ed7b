"""A causal language model as a module that scores suffixes.

In: B pairs of token ids. Out: `logps_BT` and `mask_BT`, as `preceptor_trainer.logprobs.suffix_logps` gives them.
Everything that touches a parameter happens inside `forward`, so that the module can be the root of a sharded model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from preceptor_trainer.logprobs import suffix_logps


class SuffixScorer(torch.nn.Module):
    """`fallback` says why prefixes are not shared; None if they are."""

    def __init__(self, model: Any, fallback: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.fallback = fallback

    def forward(self, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """`logps_BT` (float32, 0 where masked) and `mask_BT`, in the order of the pairs; T is the longest suffix.

        Raises ValueError for an empty prefix.
        """
        return suffix_logps(self.model, prefixes, suffixes)


def make_scorer(model: Any, shared_prefix: Literal["auto", "off"] = "auto") -> SuffixScorer:
    """Of `model`, a Hugging Face causal language model."""
    return SuffixScorer(model, "rows of sequences")
