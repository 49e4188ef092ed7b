"""What a decoder of the Llama family costs, dense or with experts: parameters, FLOPs, bytes. Pure.

In: sizes, as a Hugging Face `config.json` has them. Out: parameters, the FLOPs of a `Span` of tokens, bytes of keys and
values. A multiplication with an addition is two FLOPs. Left out, as is usual: norms, activations, biases, softmax.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor_trainer.errors import TrainError
from preceptor_trainer.section import Positive, Section, Weight


class ModelSizes(Section):
    """A model's sizes. `weight_bytes` and `kv_bytes` are those of one number as it is served."""

    name: str
    layers: Positive
    hidden: Positive
    heads: Positive
    kv_heads: Positive | None = None
    """None: as many as `heads`."""
    head_size: Positive | None = None
    """None: `hidden / heads`."""
    mlp: Positive
    """Of one expert."""
    vocab: Positive
    experts: Positive = 1
    active_experts: Positive = 1
    tied: bool = False
    """One matrix is both embedding and head."""
    global_layers: Positive | None = None
    """Layers that attend to everything before; the others see a window too short to count. None: all of them."""
    weight_bytes: Weight = 2.0
    kv_bytes: Weight = 2.0

    @property
    def _head_size(self) -> int:
        return self.head_size or self.hidden // self.heads

    @property
    def _kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def _attention(self) -> int:
        """Parameters of a layer's four projections."""
        return 2 * self.hidden * self._head_size * (self.heads + self._kv_heads)

    @property
    def _router(self) -> int:
        return self.hidden * self.experts if self.experts > 1 else 0

    @property
    def head(self) -> int:
        """Parameters of the matrix that gives the logits."""
        return self.hidden * self.vocab

    @property
    def expert(self) -> int:
        """Parameters of one expert of one layer."""
        return 3 * self.hidden * self.mlp

    @property
    def matrices(self) -> int:
        """Parameters that every token is multiplied with, the head left out."""
        return self.layers * (self._attention + self._router + self.active_experts * self.expert)

    @property
    def parameters(self) -> int:
        """All of them."""
        layer = self._attention + self._router + self.experts * self.expert + 2 * self.hidden
        return self.layers * layer + self.hidden + self.head * (1 if self.tied else 2)

    @property
    def active_parameters(self) -> int:
        """Those that one token meets; of the embedding it meets one row."""
        return self.matrices + self.head

    @property
    def bytes(self) -> float:
        """Of the weights as they are served."""
        return self.parameters * self.weight_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        """Of keys and values."""
        return 2 * (self.global_layers or self.layers) * self._kv_heads * self._head_size * self.kv_bytes

    @property
    def saved_per_token(self) -> int:
        """Numbers that a layer keeps of a token for the way back: four of the stream, queries and what attention
        gives, keys and values, four of the MLP."""
        return 4 * self.hidden + 2 * self._head_size * (self.heads + self._kv_heads) + 4 * self.mlp

    def flops(self, tokens: float, pairs: float, logits: float) -> float:
        """Of a forward pass over `tokens`, with `pairs` of a query and a key, and logits at so many positions."""
        attention = 4 * (self.global_layers or self.layers) * self.heads * self._head_size
        return 2 * self.matrices * tokens + attention * pairs + 2 * self.head * logits


@dataclass(frozen=True)
class Span:
    """`count` sequences, each of `tokens` after `context` others whose keys and values are there. Of each, the logits
    of `logits` positions are wanted."""

    count: float
    tokens: float
    context: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        """Tokens of all sequences."""
        return self.count * self.tokens

    @property
    def pairs(self) -> float:
        """Of a query and a key that it sees: all of the context, and the span up to itself."""
        return self.count * (self.tokens * self.context + self.tokens * (self.tokens + 1) / 2)


def forward_flops(model: ModelSizes, spans: Iterable[Span]) -> float:
    """Of computing `spans` once."""
    return sum(model.flops(span.total, span.pairs, span.count * span.logits) for span in spans)


def read_sizes(directory: Path) -> ModelSizes:
    """The sizes of a Hugging Face directory. Raises `TrainError` if it does not tell them."""
    path = directory / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot read {path} ({error}): give the sizes in the plan's settings") from None
    return sizes_of(config, directory.name, path)


def sizes_of(config: Mapping[str, Any], name: str, source: object) -> ModelSizes:
    """The sizes that the content of a `config.json` tells; errors say that it is from `source`."""
    try:
        return ModelSizes(
            name=name,
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads"),
            head_size=config.get("head_dim"),
            mlp=config.get("moe_intermediate_size") or config["intermediate_size"],
            vocab=config["vocab_size"],
            experts=config.get("num_local_experts") or config.get("num_experts") or 1,
            active_experts=config.get("num_experts_per_tok") or 1,
            tied=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise TrainError(
            f"{source} has no {error}: it is no model of the Llama family; give the sizes by hand"
        ) from None
