"""Attention of K rows against one copy of the prefix that they share, as an attention implementation of transformers.

    share_prefixes(model)              from now on the model's attention heeds the argument `shared`, where one is given
    model(ids, shared=SharedCache)     one decode step; every other call is attended to as before

    row      shared keys: prefix (once for K rows) | own keys: what the row sampled so far
    cost     one product of K queries with the prefix, instead of K products with K copies of it

Guarantees: a layer that asks for more than plain causal attention (a window, a soft cap, sinks, anything unknown) is an
`AttentionRefused` that says so, not a wrong figure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from preceptor_trainer.attention import admit_plain, heed, heed_no_more

_ARGUMENT = "shared"


class SharedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values: of P prefixes, `W` wide and padded on the left, and of the R = P x K rows' own tokens.

    What it gives the attention are the own ones.
    """

    def __init__(self, prefix_keys_PGWD: Tensor, prefix_values_PGWD: Tensor, k: int, tokens: int) -> None:
        super().__init__()
        prefixes, heads, _, size = prefix_keys_PGWD.shape
        self.prefix_keys_PGWD, self.prefix_values_PGWD = prefix_keys_PGWD, prefix_values_PGWD
        self._room = [prefix_keys_PGWD.new_empty(prefixes * k, heads, tokens, size) for _ in range(2)]
        self._length = 0
        self.dtype, self.device, self.is_initialized = prefix_keys_PGWD.dtype, prefix_keys_PGWD.device, True
        self.keys, self.values = (room[:, :, :0] for room in self._room)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start, self._length = self._length, self._length + keys.shape[-2]
        for room, new in zip(self._room, (keys, values), strict=True):
            room[:, :, start : self._length] = new
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)
        return self.keys, self.values

    def keep(self, prefixes_P: Tensor, rows_R: Tensor) -> None:
        """Drop the others."""
        if len(prefixes_P) < len(self.prefix_keys_PGWD):
            self.prefix_keys_PGWD = self.prefix_keys_PGWD[prefixes_P]
            self.prefix_values_PGWD = self.prefix_values_PGWD[prefixes_P]
        self._room = [room[rows_R] for room in self._room]


class SharedCache(DynamicCache):  # type: ignore[misc]
    """Made of the cache of P prefixes whose columns `padding_PW` are nothing (None: every prefix is as wide)."""

    def __init__(self, layers: list[SharedLayer], padding_PW: Tensor | None) -> None:
        super().__init__()
        self.layers = layers
        self.bias_P11W = None
        if padding_PW is not None:
            zeros_PW = torch.zeros(padding_PW.shape, dtype=layers[0].dtype, device=padding_PW.device)
            self.bias_P11W = zeros_PW.masked_fill_(padding_PW, float("-inf"))[:, None, None]

    def keep(self, prefixes_P: Tensor, rows_R: Tensor) -> None:
        """Drop the others."""
        for layer in self.layers:
            layer.keep(prefixes_P, rows_R)
        if self.bias_P11W is not None:
            self.bias_P11W = self.bias_P11W[prefixes_P]


def share_prefixes(model: Any) -> None:
    """Switch `model` over. Raises `AttentionRefused` if its attention cannot be replaced."""

    heed(model, _ARGUMENT, _one_step, lambda _, asked: admit_plain(asked))


def ordinary_attention(model: Any) -> None:
    """Undo `share_prefixes`."""
    heed_no_more(model, _ARGUMENT)


def _one_step(
    layer: torch.nn.Module, query_RH1D: Tensor, key_RGTD: Tensor, value_RGTD: Tensor, given: SharedCache, scale: float
) -> Tensor:
    kept = given.layers[layer.layer_idx]  # type: ignore[index]
    return _attend(query_RH1D[:, :, 0] * scale, key_RGTD, value_RGTD, kept, given.bias_P11W)[:, None]


def _attend(
    query_RHD: Tensor, own_keys_RGTD: Tensor, own_values_RGTD: Tensor, layer: SharedLayer, bias_P11W: Tensor | None
) -> Tensor:
    """`out_RHD`: H = G x N query heads on G heads of keys. One softmax over the prefix and what is the row's own."""
    prefix_keys_PGWD, prefix_values_PGWD = layer.prefix_keys_PGWD, layer.prefix_values_PGWD
    rows, heads, size = query_RHD.shape
    prefixes, groups, width, _ = prefix_keys_PGWD.shape
    shape = (prefixes, rows // prefixes, groups, heads // groups)
    query_PGQD = query_RHD.view(*shape, size).transpose(1, 2).reshape(prefixes, groups, -1, size)
    shared_PGQW = query_PGQD @ prefix_keys_PGWD.transpose(-1, -2)
    if bias_P11W is not None:
        shared_PGQW += bias_P11W
    own_RGNT = query_RHD.view(rows, groups, -1, size) @ own_keys_RGTD.transpose(-1, -2)
    own_PGQT = own_RGNT.view(*shape, -1).transpose(1, 2).reshape(prefixes, groups, -1, own_keys_RGTD.shape[-2])
    weights = torch.cat([shared_PGQW, own_PGQT], -1).softmax(-1, torch.float32).to(query_RHD.dtype)
    out_PGQD = weights[..., :width] @ prefix_values_PGWD
    own_weights_RGNT = (
        weights[..., width:].reshape(prefixes, groups, shape[1], shape[3], -1).transpose(1, 2).reshape(own_RGNT.shape)
    )
    out_PKGND = (own_weights_RGNT @ own_values_RGTD).view(*shape, size)
    out_PKGND += out_PGQD.view(prefixes, groups, shape[1], shape[3], size).transpose(1, 2)
    return out_PKGND.view(rows, heads, size)
