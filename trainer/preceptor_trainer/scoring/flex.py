"""Attention over a row of cohorts on a GPU: FlexAttention with the tree as its block mask.

In: queries, keys and values of N tokens, and the row's mask. Out: what attention with the dense mask gives, up to
rounding. Guarantees: blocks of 128 x 128 tokens that may not see each other are never computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from preceptor_trainer.scoring.layout import Layout, segments

Sees = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def sees(layout: Layout, device: torch.device) -> Sees:
    """Whether the query at one place sees the key at another: a `mask_mod` of FlexAttention."""
    own_N, shared_N = (part.to(device) for part in segments(layout))

    def tree(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        segment = own_N[key]
        return (key <= query) & ((segment == own_N[query]) | (segment == shared_N[query]))

    return tree


def block_mask(layout: Layout, device: torch.device) -> BlockMask:
    """Of the whole row."""
    tokens = len(layout.ids)
    mask: BlockMask = _fast(create_block_mask, device.type)(sees(layout, device), 1, 1, tokens, tokens, device=device)
    return mask


def flex_tree_attention(
    query_1HND: Tensor, key_1GND: Tensor, value_1GND: Tensor, mask: BlockMask, scale: float
) -> Tensor:
    """`out_1NHD`."""
    # Inside a layer that is compiled, it is compiled with it.
    attend: Callable[..., Any] = flex_attention
    if not torch.compiler.is_compiling():
        attend = _fast(flex_attention, query_1HND.device.type)
    out_1HND = attend(
        query_1HND.to(value_1GND.dtype),
        key_1GND.to(value_1GND.dtype),
        value_1GND,
        block_mask=mask,
        scale=scale,
        enable_gqa=query_1HND.shape[1] != key_1GND.shape[1],
    )
    out_1NHD: Tensor = out_1HND.transpose(1, 2).contiguous()
    return out_1NHD


@cache
def _fast(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Compiled on a GPU: as it is, FlexAttention computes every block."""
    return torch.compile(function) if device == "cuda" else function
