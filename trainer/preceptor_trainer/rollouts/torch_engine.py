"""Batched sampling inside the trainer's process, from a snapshot of the weights.

    prefixes --one forward each--> KV cache --K rows a prefix--> T decode steps over the rows that have not ended

In: token ids. Out: `Rollouts`. It samples in a thread, so that the event loop goes on. `load` copies the weights, once
and into memory that is used in turn, and returns without waiting for a sample that is running: that one ends on the
weights it began with. A policy whose probabilities are no numbers is an `EngineError`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from preceptor_trainer.rollouts.decoding import Decoder, RepeatedPrefixes, SharedPrefixes, can_share
from preceptor_trainer.rollouts.engine import EngineError, Rollout, Rollouts

_SHRINK = 0.75
"""The batch is made smaller when this share of its rows is enough for those that have not ended."""


class TorchEngine:
    """`model` gives architecture, device and the weights of `version`; `eos_id` ends a rollout. `fallback` says why the
    rollouts of a prefix do not share its keys and values; None if they do.
    """

    def __init__(self, model: Any, *, eos_id: int | None = None, version: int = 0) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self.fallback = can_share(self._model)
        self._eos_id = eos_id
        self._installed = version
        self._pending: tuple[int, dict[str, Tensor]] | None = None
        self._spare: dict[str, Tensor] = {}
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
        self._install()
        return await asyncio.to_thread(self._sample, prefixes, k, n_tokens, temperature, top_p, generator)

    async def load(self, model: Any, version: int) -> None:
        into = self._pending[1] if self._pending else self._spare
        self._pending, self._spare = None, {}
        self._pending = version, _copied(model.state_dict(), into)

    async def close(self) -> None:
        self._pending = None

    def _install(self) -> None:
        if self._pending:
            before = self._model.state_dict()
            self._installed, tensors = self._pending
            self._model.load_state_dict(tensors, assign=True)
            self._pending, self._spare = None, before

    @torch.inference_mode()
    def _sample(
        self,
        prefixes: Sequence[Sequence[int]],
        k: int,
        n_tokens: int,
        temperature: float,
        top_p: float,
        generator: torch.Generator,
    ) -> Rollouts:
        kind = RepeatedPrefixes if self.fallback else SharedPrefixes
        decoder: Decoder = kind(self._model, prefixes, k, n_tokens)
        ids_RT, logps_RT = generate(decoder, k, n_tokens, temperature, top_p, generator, eos_id=self._eos_id)
        rows = [
            _until_end(ids, logps, self._eos_id) for ids, logps in zip(ids_RT.tolist(), logps_RT.tolist(), strict=True)
        ]
        return Rollouts(self._installed, tuple(tuple(rows[i : i + k]) for i in range(0, len(rows), k)))


def generate(
    decoder: Decoder,
    k: int,
    n_tokens: int,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    *,
    eos_id: int | None,
) -> tuple[Tensor, Tensor]:
    """`ids_RT` and `logps_RT`, R = P x k with the k rows of a prefix side by side.

    What follows an end-of-text token in a row means nothing. T is below `n_tokens` when every row has ended.
    """
    logits_RV = decoder.start().repeat_interleave(k, dim=0)
    ids_RT = torch.zeros(len(logits_RV), n_tokens, dtype=torch.long, device=logits_RV.device)
    logps_RT = torch.zeros(ids_RT.shape, device=logits_RV.device)
    rows_PK = torch.arange(len(logits_RV), device=logits_RV.device).view(-1, k)
    """Which of all rows those in the batch are."""
    ended_PK = torch.zeros_like(rows_PK, dtype=torch.bool)
    for step in range(n_tokens):
        logps_RV = logits_RV.float().log_softmax(-1)
        if logps_RV[:, 0].isnan().any():  # one NaN or infinity makes a whole row NaN
            raise EngineError(
                "the policy's probabilities are no numbers: its weights are too large; lower optimizer.lr"
            )
        chosen_R1 = _choose(logps_RV, temperature, top_p, generator)
        rows_R = rows_PK.flatten()
        ids_RT[rows_R, step] = chosen_R1[:, 0]
        logps_RT[rows_R, step] = logps_RV.gather(-1, chosen_R1)[:, 0]
        if step + 1 == n_tokens:
            break
        if eos_id is not None:
            ended_PK |= (chosen_R1 == eos_id).view(ended_PK.shape)
            if ended_PK.all():
                return ids_RT[:, : step + 1], logps_RT[:, : step + 1]
            prefixes_P, columns_PK = _going_on(ended_PK)
            if columns_PK.numel() <= _SHRINK * ended_PK.numel():
                places_R = (prefixes_P[:, None] * ended_PK.shape[1] + columns_PK).flatten()
                if decoder.keep(prefixes_P, places_R):
                    rows_PK, ended_PK = (
                        part.flatten()[places_R].view(columns_PK.shape) for part in (rows_PK, ended_PK)
                    )
                    chosen_R1 = chosen_R1[places_R]
        logits_RV = decoder.step(chosen_R1)
    return ids_RT, logps_RT


def _going_on(ended_PK: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest batch with all rows that have not ended: its prefixes, and which rows of each, as many of each."""
    counts_P = (~ended_PK).sum(1)
    prefixes_P = counts_P.nonzero()[:, 0]
    columns_PK = ended_PK[prefixes_P].int().argsort(dim=1, stable=True)[:, : int(counts_P.max())]
    return prefixes_P, columns_PK


def _choose(logps_RV: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """One id a row, `ids_R1`: where a uniform number falls among the summed probabilities.

    One random number a row, where `torch.multinomial` draws one for each id.
    """
    if temperature == 0:
        return logps_RV.argmax(-1, keepdim=True)
    probs_RV = (logps_RV / temperature).softmax(-1) if temperature != 1 else logps_RV.exp()
    if top_p < 1:
        sorted_RV, order_RV = probs_RV.sort(-1, descending=True)
        # The smallest set whose probability reaches top_p: an id stays while those before it have less than that.
        sorted_RV = sorted_RV.masked_fill(sorted_RV.cumsum(-1) - sorted_RV >= top_p, 0.0)
        probs_RV = torch.zeros_like(probs_RV).scatter(-1, order_RV, sorted_RV)
    sums_RV = probs_RV.cumsum(-1)
    total_R1 = sums_RV[:, -1:]
    point_R1 = torch.rand(total_R1.shape, generator=generator, device=total_R1.device) * total_R1
    # Below the total, also after rounding: the id is then one whose probability is not 0.
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))
    return torch.searchsorted(sums_RV, torch.minimum(point_R1, below_R1), right=True)


def _until_end(ids: list[int], logps: list[float], eos_id: int | None) -> Rollout:
    end = ids.index(eos_id) + 1 if eos_id in ids else len(ids)
    return Rollout(tuple(ids[:end]), tuple(logps[:end]))


def _copied(tensors: dict[str, Tensor], into: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of every tensor, in the memory of `into` where it fits. Names of one tensor stay names of one."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    made = {}
    for name, tensor in tensors.items():
        key = tensor.data_ptr(), tensor.shape
        if key not in copies:
            room = into.get(name)
            fits = room is not None and room.shape == tensor.shape and room.dtype == tensor.dtype
            copies[key] = room.copy_(tensor) if room is not None and fits else tensor.detach().clone()
        made[name] = copies[key]
    return made
