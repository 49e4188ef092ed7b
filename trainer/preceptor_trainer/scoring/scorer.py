"""A causal language model as a module that scores suffixes, each prefix computed once where the model can do so.

In: B pairs of token ids. Out: `logps_BT` and `mask_BT`, equal up to rounding to those that
`preceptor_trainer.logprobs.suffix_logps` gives. Guarantees: which of the ways below a model takes is found out by
comparing both on a few random tokens when the scorer is made, and not from a list of models; everything that touches
a parameter happens inside `forward`, so that the module can be the root of a sharded model.

    shared   one row of cohorts, log-probabilities from hidden states and output weights
    logits   one row of cohorts, the model's own logits at the places that predict a suffix
    rows     a padded row for each pair
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from preceptor_trainer.attention import AttentionRefused
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.scoring.attention import Tree, ordinary_attention, shared_prefixes
from preceptor_trainer.scoring.head import token_logps
from preceptor_trainer.scoring.layout import lay_out, scored

Way = Literal["shared", "logits", "rows"]

_TOLERANCE = 1e-4
"""Relative error of a log-probability, in float32: more than rounding, less than a wrong mask or position."""


class SuffixScorer(torch.nn.Module):
    """`fallback` says why prefixes are not shared; None if they are. `window` bounds the tokens of a sequence that may
    be in a row of cohorts.
    """

    def __init__(self, model: Any, way: Way, *, fallback: str | None = None, window: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.way = way
        self.fallback = fallback
        self._window = window

    def forward(self, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """`logps_BT` (float32 or wider, 0 where masked) and `mask_BT`, in the order of the pairs; T is the longest
        suffix.

        Raises ValueError for an empty prefix.
        """
        if self.way == "rows" or (self._window is not None and self._window < _longest(prefixes, suffixes)):
            return suffix_logps(self.model, prefixes, suffixes)
        return _shared(self.model, self.way, prefixes, suffixes)[:2]


def make_scorer(model: Any, shared_prefix: Literal["auto", "off"] = "auto") -> SuffixScorer:
    """Of `model`, a Hugging Face causal language model. Its attention is replaced by one that knows cohorts as well."""
    if shared_prefix == "off":
        return SuffixScorer(model, "rows", fallback="compute.shared_prefix is off")
    try:
        shared_prefixes(model)
        way, window = _try(model)
    except AttentionRefused as refusal:
        ordinary_attention(model)
        return SuffixScorer(model, "rows", fallback=str(refusal))
    return SuffixScorer(model, way, window=window)


def _shared(
    model: Any, way: Way, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tree]:
    """Also the `Tree`, which has seen every layer."""
    layout, width, device = lay_out(prefixes, suffixes), max(map(len, suffixes)), model.device
    wanted, tree = scored(layout, width), Tree(layout, device)
    inputs = {
        "input_ids": torch.tensor([layout.ids], device=device),
        "position_ids": torch.tensor([layout.positions], device=device),
        # Four dimensions are taken for a mask that is ready: the tree is all that is needed.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "use_cache": False,
        "tree": tree,
    }
    places_R, rows_M, targets_M = wanted.places_R.to(device), wanted.rows_M.to(device), wanted.targets_M.to(device)
    if way == "shared":
        hidden_RH = model.base_model(**inputs).last_hidden_state[0].index_select(0, places_R)
        logps_M = token_logps(hidden_RH, model.get_output_embeddings().weight, rows_M, targets_M)
    else:
        logits_RV = model(**inputs, logits_to_keep=places_R).logits[0]
        logps_M = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32)).log_softmax(-1)[rows_M, targets_M]
    logps_BT = logps_M.new_zeros(len(suffixes) * width).index_copy(0, wanted.cells_M.to(device), logps_M)
    lengths_B1 = torch.tensor([[len(suffix)] for suffix in suffixes], device=device)
    return logps_BT.view(-1, width), torch.arange(width, device=device) < lengths_B1, tree


@torch.no_grad()
def _try(model: Any) -> tuple[Way, int | None]:
    """The best way that gives what rows give, and the model's window; raises `AttentionRefused` if there is none."""
    if torch.promote_types(model.dtype, torch.float32) != model.dtype:
        # In a narrow type rounding would hide a wrong mask.
        model = copy.deepcopy(model).float()
    training = model.training
    model.eval()
    try:
        return _compare(model)
    finally:
        model.train(training)


def _compare(model: Any) -> tuple[Way, int | None]:
    dice, words = random.Random(0), range(model.config.get_text_config().vocab_size)
    texts = [tuple(dice.choices(words, k=length)) for length in (7, 4, 7)]
    prefixes = [texts[which] for which in (0, 1, 0, 2, 1, 0)]
    suffixes = [tuple(dice.choices(words, k=length)) for length in (5, 3, 1, 4, 6, 5)]
    expected_BT, mask_BT = suffix_logps(model, prefixes, suffixes)
    reasons = []
    # An output bias may be zero now and not later.
    biased = getattr(model.get_output_embeddings(), "bias", None) is not None
    ways: tuple[Way, ...] = ("logits",) if biased else ("shared", "logits")
    for way in ways:
        try:
            logps_BT, _, tree = _shared(model, way, prefixes, suffixes)
        except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError) as error:
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        off = ((logps_BT - expected_BT).abs() / expected_BT.abs().clamp(min=1e-3))[mask_BT].max().item()
        if off <= _TOLERANCE:
            return way, tree.window
        reasons.append(f"its log-probabilities were off by {off:.1e} of their size")
    raise AttentionRefused(reasons[-1])


def _longest(prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]) -> int:
    return max(len(prefix) + len(suffix) for prefix, suffix in zip(prefixes, suffixes, strict=True))
