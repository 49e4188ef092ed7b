"""Decoding K rows of each prefix, one token of every row at a time.

    prefixes --one forward per length--> keys and values --shared by, or repeated for, K rows--> T steps over R rows

In: a Hugging Face causal language model and prefixes. Out: logits. Guarantees: each prefix is computed once, beside
others of about its length; logits equal, up to rounding, those of a plain forward pass of the row.

    SharedPrefixes      K rows attend to one copy of their prefix; for models that were found to give the same so
    RepeatedPrefixes    each row has a copy of its prefix; for every model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from preceptor_trainer.attention import AttentionRefused
from preceptor_trainer.errors import one_line
from preceptor_trainer.rollouts.shared_attention import SharedCache, SharedLayer, ordinary_attention, share_prefixes

_SLACK = 32
"""Prefixes are computed together if they differ by no more tokens than this, or by a quarter."""
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
_COARSE_TOLERANCE = 3e-2
"""How far logits may be from a plain forward pass's, as a share of the largest: rounding, but no wrong mask."""


class Decoder(Protocol):
    """R = P x K rows, those of a prefix side by side."""

    def start(self) -> Tensor:
        """`logits_PV` after each prefix. Once, before all else."""
        ...

    def step(self, ids_R1: Tensor) -> Tensor:
        """`logits_RV` after one more token in each row."""
        ...

    def keep(self, prefixes_P: Tensor, rows_R: Tensor) -> bool:
        """Go on with these rows, the same number of each prefix, alone. False: all rows stay."""
        ...


class SharedPrefixes:
    """`tokens` is the number of steps there is room for."""

    def __init__(self, model: Any, prefixes: Sequence[Sequence[int]], k: int, tokens: int) -> None:
        self._model = model
        self._prefixes = prefixes
        self._k = k
        self._tokens = tokens

    def start(self) -> Tensor:
        lengths = [len(prefix) for prefix in self._prefixes]
        batches = by_length(lengths)
        width, logits_PV = max(lengths), None
        kept: list[list[Tensor]] = []
        for batch in batches:
            logits, cache = _prefill(self._model, [self._prefixes[index] for index in batch])
            if not all(type(layer) is DynamicLayer for layer in cache.layers):
                raise AttentionRefused("a layer does not keep every token")
            if logits_PV is None:
                logits_PV = logits.new_empty(len(lengths), logits.shape[-1])
                kept = [
                    [part.new_zeros(len(lengths), part.shape[1], width, part.shape[3]) for part in _parts(layer)]
                    for layer in cache.layers
                ]
            logits_PV[batch] = logits
            for whole, layer in zip(kept, cache.layers, strict=True):
                for part_PGWD, part in zip(whole, _parts(layer), strict=True):
                    part_PGWD[batch, :, width - part.shape[2] :] = part
        assert logits_PV is not None
        lengths_P = torch.tensor(lengths, device=logits_PV.device)
        padding_PW = torch.arange(width, device=logits_PV.device) < width - lengths_P[:, None]
        layers = [SharedLayer(keys, values, self._k, self._tokens) for keys, values in kept]
        self._cache = SharedCache(layers, padding_PW if min(lengths) < width else None)
        self._positions_R1 = lengths_P.repeat_interleave(self._k)[:, None]
        return logits_PV

    def step(self, ids_R1: Tensor) -> Tensor:
        logits_RV: Tensor = self._model(
            input_ids=ids_R1,
            position_ids=self._positions_R1,
            past_key_values=self._cache,
            use_cache=True,
            shared=self._cache,
        ).logits[:, -1]
        self._positions_R1 = self._positions_R1 + 1
        return logits_RV

    def keep(self, prefixes_P: Tensor, rows_R: Tensor) -> bool:
        self._cache.keep(prefixes_P, rows_R)
        self._positions_R1 = self._positions_R1[rows_R]
        return True


class RepeatedPrefixes:
    """`tokens` is the number of steps there is room for."""

    def __init__(self, model: Any, prefixes: Sequence[Sequence[int]], k: int, tokens: int) -> None:
        self._model = model
        self._prefixes = prefixes
        self._k = k
        self._tokens = tokens

    def start(self) -> Tensor:
        lengths_P = torch.tensor([len(prefix) for prefix in self._prefixes], device=self._model.device)
        logits_PV, self._cache = _prefill(self._model, self._prefixes)
        for index, layer in enumerate(self._cache.layers):
            if type(layer) is DynamicLayer:
                self._cache.layers[index] = _RoomyLayer(layer, self._k, self._tokens)
            else:
                layer.batch_repeat_interleave(self._k)
        width = int(lengths_P.max())
        self._positions_R1 = lengths_P.repeat_interleave(self._k)[:, None]
        self._attention = None
        if bool((lengths_P < width).any()):
            seen_PW = torch.arange(width, device=lengths_P.device) >= width - lengths_P[:, None]
            self._attention = seen_PW.repeat_interleave(self._k, dim=0).long()
        return logits_PV

    def step(self, ids_R1: Tensor) -> Tensor:
        if self._attention is not None:
            self._attention = torch.cat([self._attention, self._attention.new_ones(len(ids_R1), 1)], dim=-1)
        logits_RV: Tensor = self._model(
            input_ids=ids_R1,
            attention_mask=self._attention,
            position_ids=self._positions_R1,
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        self._positions_R1 = self._positions_R1 + 1
        return logits_RV

    def keep(self, prefixes_P: Tensor, rows_R: Tensor) -> bool:
        return False


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room for `tokens` more, so that a decode step writes one column instead of copying them all.

    Starts as `layer`, every row `k` times.
    """

    def __init__(self, layer: DynamicLayer, k: int, tokens: int) -> None:
        super().__init__()
        rows, heads, self._length, size = layer.keys.shape
        self._room = [layer.keys.new_empty(rows * k, heads, self._length + tokens, size) for _ in range(2)]
        for room, held in zip(self._room, _parts(layer), strict=True):
            room[:, :, : self._length].unflatten(0, (rows, k)).copy_(held[:, None].expand(-1, k, -1, -1, -1))
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start, self._length = self._length, self._length + keys.shape[-2]
        for room, new in zip(self._room, (keys, values), strict=True):
            room[:, :, start : self._length] = new
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)
        return self.keys, self.values


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in batches of about equal length, longest first: no batch is padded by more than its slack."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or longest - lengths[index] > max(_SLACK, longest // 4):
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


@torch.inference_mode()
def can_share(model: Any) -> str | None:
    """Switch `model` to shared prefixes if that gives what a plain forward pass gives; otherwise, why not."""
    generator = torch.Generator().manual_seed(0)
    ids_B = torch.randint(0, model.config.vocab_size, (2 * 6,), generator=generator).tolist()
    prefixes, rows = [ids_B[:5], ids_B[5:8]], [[ids_B[8], ids_B[9]], [ids_B[10], ids_B[11]]]
    try:
        share_prefixes(model)
        decoder = SharedPrefixes(model, prefixes, 2, 2)
        decoder.start()
        for step in range(2):
            found_RV = decoder.step(torch.tensor([[row[step]] for _ in prefixes for row in rows], device=model.device))
        texts = [[*prefix, *row] for prefix in prefixes for row in rows]
        plain_RV = torch.cat([model(torch.tensor([text], device=model.device)).logits[:, -1] for text in texts])
        error = float((found_RV - plain_RV).abs().max() / plain_RV.abs().max())
        if not error <= _TOLERANCE.get(plain_RV.dtype, _COARSE_TOLERANCE):
            raise AttentionRefused(f"its logits differ by {error:.2g} of the largest")
    except Exception as error:  # noqa: BLE001 - what a model makes of a new attention is not said anywhere
        ordinary_attention(model)
        return f"{type(error).__name__}: {one_line(str(error))}"
    return None


def _prefill(model: Any, prefixes: Sequence[Sequence[int]]) -> tuple[Tensor, DynamicCache]:
    """`logits_PV` after each prefix, and their cache, padded on the left."""
    width = max(map(len, prefixes))
    ids_PW = torch.tensor([[0] * (width - len(prefix)) + list(prefix) for prefix in prefixes], device=model.device)
    positions = {}
    if any(len(prefix) < width for prefix in prefixes):
        # Without padding the model takes its faster causal path.
        lengths_P = torch.tensor([len(prefix) for prefix in prefixes], device=model.device)
        seen_PW = torch.arange(width, device=model.device) >= width - lengths_P[:, None]
        positions = {"attention_mask": seen_PW.long(), "position_ids": (seen_PW.cumsum(-1) - 1).clamp(min=0)}
    cache = DynamicCache(config=model.config)
    logits = model(input_ids=ids_PW, past_key_values=cache, use_cache=True, logits_to_keep=1, **positions).logits
    return logits[:, -1], cache


def _parts(layer: DynamicLayer) -> tuple[Tensor, Tensor]:
    return layer.keys, layer.values
