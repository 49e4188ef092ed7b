"""A model's attention that heeds an argument of ours, where a call gives it.

    heed(model, "tree", attend, admit)    model(..., tree=it) attends by `attend`; every other call as before
    heed_no_more(model, "tree")           undoes that

As an attention implementation of transformers, beside the one that the model has. Guarantees: a layer that asks for
more than plain causal attention (a soft cap, sinks, dropout, anything unknown) is an `AttentionRefused` that says so,
not a wrong figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_HARMLESS = {"position_ids", "use_cache", "is_causal", "output_attentions", "output_hidden_states", "return_dict"}
"""Arguments that do not change what a layer that attends causally gives."""


class AttentionRefused(Exception):
    """Why a model cannot attend as it is asked to."""


class Attend(Protocol):
    """Attention of one layer."""

    def __call__(
        self,
        layer: torch.nn.Module,
        query_BHTD: Tensor,
        key_BGTD: Tensor,
        value_BGTD: Tensor,
        given: Any,
        scale: float,
        /,
    ) -> Tensor:
        """`out_BTHD`. `given` is the argument."""
        ...


def heed(model: Any, argument: str, attend: Attend, admit: Callable[[Any, dict[str, Any]], None]) -> None:
    """Switch `model` over. `admit` is shown what a layer asks for besides, and raises `AttentionRefused`.

    Raises `AttentionRefused` if the model's attention cannot be replaced.
    """
    ordinary = model.config._attn_implementation
    name = _name(argument, ordinary)
    if ordinary.startswith(_name(argument, "")):
        return
    if ordinary not in ALL_ATTENTION_FUNCTIONS:
        raise AttentionRefused(f"its attention is {ordinary}")
    ALL_ATTENTION_FUNCTIONS.register(name, _heeding(argument, ALL_ATTENTION_FUNCTIONS[ordinary], attend, admit))
    if ordinary in ALL_MASK_ATTENTION_FUNCTIONS:
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[ordinary])
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise AttentionRefused("its attention cannot be replaced")


def heed_no_more(model: Any, argument: str) -> None:
    """Undo `heed`."""
    now = model.config._attn_implementation
    if now.startswith(_name(argument, "")):
        model.set_attn_implementation(now.removeprefix(_name(argument, "")))


def admit_plain(asked: dict[str, Any], *, known: str = "") -> None:
    """Raises `AttentionRefused` if a layer asks for more than plain causal attention and what is `known`."""
    if asked.get("is_causal") is False:
        raise AttentionRefused("a layer attends to what comes after")
    for name, value in asked.items():
        nothing = value is None or (isinstance(value, bool | int | float) and not value)
        if name not in _HARMLESS and name != known and not nothing:
            raise AttentionRefused(f"a layer's attention takes {name}")


def _name(argument: str, ordinary: str) -> str:
    return f"preceptor_{argument}_{ordinary}"


def _heeding(
    argument: str, ordinary: Callable[..., Any], attend: Attend, admit: Callable[[Any, dict[str, Any]], None]
) -> Callable[..., Any]:
    def attention(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **asked: Any
    ) -> tuple[Tensor, Tensor | None]:
        given = asked.pop(argument, None)
        if given is None:
            attended: tuple[Tensor, Tensor | None] = ordinary(module, query, key, value, attention_mask, **asked)
            return attended
        scaling = asked.pop("scaling", None)
        admit(given, asked)
        return attend(module, query, key, value, given, query.shape[-1] ** -0.5 if scaling is None else scaling), None

    return attention
