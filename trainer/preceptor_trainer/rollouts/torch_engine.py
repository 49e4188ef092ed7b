"""Batched sampling inside the trainer's process, from a snapshot of the weights.

    prefixes (left-padded) --one forward--> KV cache --repeat K times--> T decode steps over B x K rows

In: token ids. Out: `Rollouts`. It samples in a thread, so that the event loop goes on. `load` copies the weights and
returns without waiting for a sample that is running: that one ends on the weights it began with. A policy whose
probabilities are no numbers is an `EngineError`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from preceptor_trainer.rollouts.engine import EngineError, Rollout, Rollouts


class TorchEngine:
    """`model` gives architecture, device and the weights of `version`; `eos_id` ends a rollout."""

    def __init__(self, model: Any, *, eos_id: int | None = None, version: int = 0) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._eos_id = eos_id
        self._installed = version
        self._pending: tuple[int, dict[str, Tensor]] | None = None
        self.waiting: str | None = None

    @property
    def version(self) -> int:
        return self._pending[0] if self._pending else self._installed

    async def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        k: int,
        n_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Rollouts:
        generator = torch.Generator(self._model.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        pending, self._pending = self._pending, None
        return await asyncio.to_thread(self._sample, pending, prefixes, k, n_tokens, temperature, top_p, generator)

    async def load(self, model: Any, version: int) -> None:
        self._pending = version, {name: tensor.clone() for name, tensor in model.state_dict().items()}

    async def close(self) -> None:
        self._pending = None

    @torch.inference_mode()
    def _sample(
        self,
        pending: tuple[int, dict[str, Tensor]] | None,
        prefixes: Sequence[Sequence[int]],
        k: int,
        n_tokens: int,
        temperature: float,
        top_p: float,
        generator: torch.Generator,
    ) -> Rollouts:
        if pending:
            self._installed = pending[0]
            self._model.load_state_dict(pending[1])
        ids_BT, logps_BT = generate(
            self._model, prefixes, k, n_tokens, temperature, top_p, generator, eos_id=self._eos_id
        )
        rows = [
            _until_end(ids, logps, self._eos_id) for ids, logps in zip(ids_BT.tolist(), logps_BT.tolist(), strict=True)
        ]
        return Rollouts(self._installed, tuple(tuple(rows[i : i + k]) for i in range(0, len(rows), k)))


def generate(
    model: Any,
    prefixes: Sequence[Sequence[int]],
    k: int,
    n_tokens: int,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    *,
    eos_id: int | None,
) -> tuple[Tensor, Tensor]:
    """`ids_BT` and `logps_BT`, B = len(prefixes) x k with the k rows of a prefix side by side.

    What follows an end-of-text token in a row means nothing. T is below `n_tokens` when every row has ended.
    """
    width = max(map(len, prefixes))
    rows = [[0] * (width - len(prefix)) + list(prefix) for prefix in prefixes]
    lengths_P = torch.tensor([len(prefix) for prefix in prefixes], device=model.device)
    padded = bool((lengths_P < width).any())
    attention = torch.arange(width, device=model.device) >= (width - lengths_P)[:, None]
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=attention.long() if padded else None,
        position_ids=(attention.cumsum(-1) - 1).clamp(min=0) if padded else None,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    _spread(cache, k, n_tokens)
    logits = logits.repeat_interleave(k, dim=0)
    positions_B1 = lengths_P.repeat_interleave(k)[:, None]
    attention = attention.repeat_interleave(k, dim=0).long()
    ended_B = torch.zeros(len(logits), dtype=torch.bool, device=model.device)

    ids, logps = [], []
    for step in range(n_tokens):
        logps_BV = logits.float().log_softmax(-1)
        if logps_BV[:, 0].isnan().any():  # one NaN or infinity makes a whole row NaN
            raise EngineError(
                "the policy's probabilities are no numbers: its weights are too large; lower optimizer.lr"
            )
        chosen_B1 = _choose(logps_BV, temperature, top_p, generator)
        ids.append(chosen_B1)
        logps.append(logps_BV.gather(-1, chosen_B1))
        if eos_id is not None:
            ended_B |= chosen_B1[:, 0] == eos_id
            if ended_B.all():
                break
        if step + 1 < n_tokens:
            if padded:
                attention = torch.cat([attention, attention.new_ones(len(attention), 1)], dim=-1)
            logits = model(
                input_ids=chosen_B1,
                attention_mask=attention if padded else None,
                position_ids=positions_B1 + step,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
    return torch.cat(ids, dim=-1), torch.cat(logps, dim=-1)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room for `tokens` more, so that a decode step writes one column instead of copying them all.

    Starts as `layer`, every row `k` times.
    """

    def __init__(self, layer: DynamicLayer, k: int, tokens: int) -> None:
        super().__init__()
        rows, heads, self._length, size = layer.keys.shape
        self._room = [layer.keys.new_empty(rows * k, heads, self._length + tokens, size) for _ in range(2)]
        for room, held in zip(self._room, (layer.keys, layer.values), strict=True):
            room[:, :, : self._length].unflatten(0, (rows, k)).copy_(held[:, None].expand(-1, k, -1, -1, -1))
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start, self._length = self._length, self._length + keys.shape[-2]
        for room, new in zip(self._room, (keys, values), strict=True):
            room[:, :, start : self._length] = new
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)
        return self.keys, self.values


def _spread(cache: DynamicCache, k: int, tokens: int) -> None:
    """Repeat every row of `cache` k times, with room for `tokens` more where the layer keeps everything."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = _RoomyLayer(layer, k, tokens)
        else:
            layer.batch_repeat_interleave(k)


def _choose(logps_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """One id a row, `ids_B1`."""
    if temperature == 0:
        return logps_BV.argmax(-1, keepdim=True)
    probs_BV = (logps_BV / temperature).softmax(-1) if temperature != 1 else logps_BV.exp()
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(-1, descending=True)
        # The smallest set whose probability reaches top_p: an id stays while those before it have less than that.
        sorted_BV = sorted_BV.masked_fill(sorted_BV.cumsum(-1) - sorted_BV >= top_p, 0.0)
        probs_BV = torch.zeros_like(probs_BV).scatter(-1, order_BV, sorted_BV)
    return torch.multinomial(probs_BV, 1, generator=generator)


def _until_end(ids: list[int], logps: list[float], eos_id: int | None) -> Rollout:
    end = ids.index(eos_id) + 1 if eos_id in ids else len(ids)
    return Rollout(tuple(ids[:end]), tuple(logps[:end]))
