"""Tree attention as an attention implementation of transformers.

    shared_prefixes(model)     from now on the model's attention heeds the argument `tree`, where one is given
    model(..., tree=Tree)      a row of cohorts; every other call is attended to as before

Guarantees: a layer that asks for what the tree does not have (a soft cap, sinks, a window that is too short, dropout,
anything unknown) is an `AttentionRefused` that says so, not a wrong figure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from preceptor_trainer.attention import AttentionRefused, admit_plain, heed, heed_no_more
from preceptor_trainer.scoring.flex import block_mask, flex_tree_attention
from preceptor_trainer.scoring.layout import Layout
from preceptor_trainer.scoring.tree import Runs, tree_attention

_ARGUMENT = "tree"


class Tree:
    """A row of cohorts, as every layer of one forward pass sees it. `window` is the shortest one that a layer had."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.device = device
        self.window: int | None = None
        self.runs = Runs.of(layout) if device.type == "cpu" else None
        self.mask: BlockMask | None = None if device.type == "cpu" else block_mask(layout, device)
        self._longest = layout.longest

    def admit(self, asked: dict[str, Any]) -> None:
        """Raises `AttentionRefused` if a layer asks for what the tree does not have."""
        window = asked.get("sliding_window")
        if window is not None:
            self.window = min(window, self.window or window)
            if window < self._longest:
                raise AttentionRefused(f"a layer sees {window} tokens back, and a sequence has {self._longest}")
        admit_plain(asked, known="sliding_window")


def shared_prefixes(model: Any) -> None:
    """Switch `model` over. Raises `AttentionRefused` if its attention cannot be replaced."""
    heed(model, _ARGUMENT, _attend, Tree.admit)


def ordinary_attention(model: Any) -> None:
    """Undo `shared_prefixes`."""
    heed_no_more(model, _ARGUMENT)


def _attend(
    layer: torch.nn.Module, query_1HND: Tensor, key_1GND: Tensor, value_1GND: Tensor, given: Tree, scale: float
) -> Tensor:
    if given.mask is not None:
        return flex_tree_attention(query_1HND, key_1GND, value_1GND, given.mask, scale)
    out_1NHD: Tensor = _on_cpu(query_1HND, key_1GND, value_1GND, given, scale)
    return out_1NHD


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _on_cpu(query_1HND: Tensor, key_1GND: Tensor, value_1GND: Tensor, tree: Tree, scale: float) -> Tensor:
    assert tree.runs is not None
    query_NHD, key_NGD, value_NGD = (part[0].transpose(0, 1) for part in (query_1HND, key_1GND, value_1GND))
    return tree_attention(query_NHD, key_NGD, value_NGD, tree.runs, scale)[None]
