"""Tree attention as an attention implementation of transformers.

    shared_prefixes(model)     from now on the model's attention heeds the argument `tree`, where one is given
    model(..., tree=Tree)      a row of cohorts; every other call is attended to as before

Guarantees: a layer that asks for what the tree does not have (a soft cap, sinks, a window that is too short, dropout,
anything unknown) is a `TreeRefused` that says so, not a wrong figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from preceptor_trainer.scoring.flex import block_mask, flex_tree_attention
from preceptor_trainer.scoring.layout import Layout
from preceptor_trainer.scoring.tree import Runs, tree_attention

_PREFIX = "shared_prefix_"
_HARMLESS = {"position_ids", "use_cache", "is_causal", "output_attentions", "output_hidden_states", "return_dict"}
"""Arguments that do not change what a layer that attends causally gives."""


class TreeRefused(Exception):
    """Why a model cannot attend to a tree."""


class Tree:
    """A row of cohorts, as every layer of one forward pass sees it. `window` is the shortest one that a layer had."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.device = device
        self.window: int | None = None
        self.runs = Runs.of(layout) if device.type == "cpu" else None
        self.mask: BlockMask | None = None if device.type == "cpu" else block_mask(layout, device)
        self._longest = layout.longest

    def admit(self, dropout: float, asked: dict[str, Any]) -> None:
        """Raises `TreeRefused` if a layer asks for more than plain causal attention."""
        window = asked.get("sliding_window")
        if window is not None:
            self.window = min(window, self.window or window)
            if window < self._longest:
                raise TreeRefused(f"a layer sees {window} tokens back, and a sequence has {self._longest}")
        if dropout:
            raise TreeRefused("a layer has dropout in its attention")
        if asked.get("is_causal") is False:
            raise TreeRefused("a layer attends to what comes after")
        for name, value in asked.items():
            if name not in _HARMLESS and name != "sliding_window" and value is not None and value is not False:
                raise TreeRefused(f"a layer's attention takes {name}")


def shared_prefixes(model: Any) -> None:
    """Switch `model` over. Raises `TreeRefused` if its attention cannot be replaced."""
    ordinary = model.config._attn_implementation
    if ordinary.startswith(_PREFIX):
        return
    if ordinary not in ALL_ATTENTION_FUNCTIONS:
        raise TreeRefused(f"its attention is {ordinary}")
    name = _PREFIX + ordinary
    ALL_ATTENTION_FUNCTIONS.register(name, _with_trees(ALL_ATTENTION_FUNCTIONS[ordinary]))
    if ordinary in ALL_MASK_ATTENTION_FUNCTIONS:
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[ordinary])
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise TreeRefused("its attention cannot be replaced")


def ordinary_attention(model: Any) -> None:
    """Undo `shared_prefixes`."""
    now = model.config._attn_implementation
    if now.startswith(_PREFIX):
        model.set_attn_implementation(now.removeprefix(_PREFIX))


def _with_trees(ordinary: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        tree: Tree | None = None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **asked: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if tree is None:
            attended: tuple[Tensor, Tensor | None] = ordinary(
                module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **asked
            )
            return attended
        tree.admit(dropout, asked)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if tree.mask is not None:
            return flex_tree_attention(query, key, value, tree.mask, scale), None
        return _on_cpu(query, key, value, tree, scale), None

    return attend


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _on_cpu(query_1HND: Tensor, key_1GND: Tensor, value_1GND: Tensor, tree: Tree, scale: float) -> Tensor:
    assert tree.runs is not None
    query_NHD, key_NGD, value_NGD = (part[0].transpose(0, 1) for part in (query_1HND, key_1GND, value_1GND))
    return tree_attention(query_NHD, key_NGD, value_NGD, tree.runs, scale)[None]
