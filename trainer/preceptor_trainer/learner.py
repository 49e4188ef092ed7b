"""The update: cohorts in, weights moved.

In: judged cohorts. Out: `UpdateStats`. Holds the policy, AdamW with its schedule and, for objectives that need one, the
reference: a copy of the starting weights, or of those that the policy had at the last refresh. Guarantees: the same
mask for policy and reference; nothing moves when loss or gradient is not a number, and weights that give none are not
given out: `TrainError` in both cases. Blocks while it computes: call it in a thread.

With several ranks each holds a part of every weight and moment and computes an equal share of the cohorts; the update
is that of one rank, up to rounding. Rank 0's methods make the others, which are in `follow`, do the same.
"""

from __future__ import annotations

import copy
import json
import math
from collections import UserList
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from preceptor_trainer.checkpoint import Moments
from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.compute import layer_names, prepare_layers, rounded, same_weights
from preceptor_trainer.config import ComputeConfig, OptimizerConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.objectives.objective import LossInputs, Objective, TrainingSequence
from preceptor_trainer.ranks import ALONE, Ranks
from preceptor_trainer.scoring import SuffixScorer, make_scorer
from preceptor_trainer.sharding import fill, part, shard, whole

_REFERENCE = "reference"
"""Beside the moments of a weight: its value in a reference that is refreshed."""
_COHORTS = TypeAdapter(list[PolicyCohort])


@dataclass(frozen=True)
class UpdateStats:
    """Of one update. `tokens` are the suffix tokens that the loss covers."""

    loss: float
    lr: float
    grad_norm: float
    tokens: int
    figures: dict[str, float] = field(default_factory=dict)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Of update `step` (from 0) of `steps`: linear warm-up to `lr`, then constant or a cosine down to `lr x
    min_lr_ratio`.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


class Learner:
    """`model` is moved in place, with several ranks that of rank 0; `version` counts its updates. With
    `refresh_reference`, the reference becomes the policy each time after so many of them.

    Raises `TrainError` if `model` does not hold numbers.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        config: OptimizerConfig,
        compute: ComputeConfig,
        steps: int,
        ranks: Ranks = ALONE,
        refresh_reference: int | None = None,
    ) -> None:
        if not _all_finite(model.parameters()):
            broken = next(name for name, weights in model.named_parameters() if not weights.isfinite().all())
            raise TrainError(f"the policy's weights are not all numbers (NaN or infinity in {broken}): set model.path")
        # Without dropout: log-probabilities must equal those that the policy engine sampled with.
        self.model = model.eval()
        self.version = 0
        self._objective = objective
        self._config = config
        self._compute = compute
        self._steps = steps
        self._ranks = ranks
        self._refresh_reference = refresh_reference
        self._keeps_reference = refresh_reference is not None
        """Whether the reference is, or will be, another than `model` was at the start."""
        self._scorer, self._reference = self._scorers()
        self._weights = dict(
            zip((name for name, _ in model.named_parameters()), self._scorer.parameters(), strict=True)
        )
        """What the optimizer moves, by name: of several ranks, each its part."""
        self._reference_weights = (
            dict(zip(self._weights, self._reference.parameters(), strict=True)) if self._reference else {}
        )
        if ranks.rank:
            self.model = None
        matrices = [p for p in self._weights.values() if p.requires_grad and p.dim() >= 2]
        vectors = [p for p in self._weights.values() if p.requires_grad and p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            fused=True,
        )

    @property
    def fallback(self) -> str | None:
        """Why a cohort's prefix is computed for each of its candidates; None if it is not."""
        return self._scorer.fallback

    def update(self, cohorts: Sequence[PolicyCohort]) -> UpdateStats:
        """One optimizer step on `cohorts`."""
        if self._ranks.count > 1:
            self._ranks.tell("update", _COHORTS.dump_json(list(cohorts)))
        return self._update(cohorts)

    def moments(self) -> Moments:
        """The optimizer's, whole, and with them a reference that is refreshed, or was; on one rank they are the
        optimizer's own, which the next update changes.
        """
        self._ranks.tell("moments")
        return self._moments()

    def restore(self, weights: Mapping[str, Tensor], moments: Moments, version: int) -> None:
        """Go on from `weights` and `moments`. The reference stays what the learner began with, unless they hold it."""
        self.model.load_state_dict(weights)
        names = {name: list(own) for name, own in moments.items()}
        self._ranks.tell("restore", json.dumps([version, names]).encode())
        self._restore(version, names, moments)

    def follow(self) -> tuple[str, bytes]:
        """Take part in what rank 0 does, until it says something that is not for a learner: what it said."""
        while True:
            match heard := self._ranks.hear():
                case "update", body:
                    with suppress(TrainError):  # which rank 0 tells
                        self._update(_COHORTS.validate_json(body))
                case "moments", _:
                    self._moments()
                case "restore", body:
                    self._restore(*json.loads(body))
                case _:
                    return heard

    def _scorers(self) -> tuple[SuffixScorer, SuffixScorer | None]:
        """Policy and reference. What is done to their layers is not done to the model that is given out."""
        compute, several = self._compute, self._ranks.count > 1
        changed = several or compute.activation_checkpointing or compute.compile
        scorer = make_scorer(same_weights(self.model) if changed else self.model, compute.shared_prefix)
        reference = copy.deepcopy(scorer).requires_grad_(False) if self._objective.needs_reference else None
        if changed:
            names = layer_names(self.model)
            for each in filter(None, (scorer, reference)):
                prepare_layers(each.model, names, compute, trained=each is scorer)
                if several:
                    shard(each, names, self._ranks, compute)
        return scorer, reference

    def _update(self, cohorts: Sequence[PolicyCohort]) -> UpdateStats:
        with self._ranks.together():
            sequences = self._objective.sequences(cohorts, self.version)
            parts = self._parts(cohorts, len(sequences))
            self.optimizer.zero_grad(set_to_none=True)
            loss, figures = self._backward(parts)
            limit = self._config.clip if self._config.clip is not None else math.inf
            grad_norm = whole(torch.nn.utils.clip_grad_norm_(self._weights.values(), limit)).item()
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                raise TrainError(
                    f"update {self.version} has loss {loss} and gradient norm {grad_norm}: lower optimizer.lr or set "
                    "optimizer.clip; it moved nothing, and the checkpoints so far can be gone on from"
                )
            lr = learning_rate(self.version, self._steps, self._config)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            if not self._gives_numbers(parts[0][0][0]):
                raise TrainError(
                    f"after update {self.version}, with learning rate {lr:g}, the policy gives no numbers any more: "
                    "lower optimizer.lr; no checkpoint has these weights, and those so far can be gone on from"
                )
            self._give_out()
            if self._refresh_reference and (self.version + 1) % self._refresh_reference == 0:
                self._refresh()
        self.version += 1
        return UpdateStats(loss, lr, grad_norm, sum(len(each.suffix) for each in sequences), figures)

    def _parts(self, cohorts: Sequence[PolicyCohort], total: int) -> list[tuple[list[TrainingSequence], float]]:
        """This rank's forward passes, as many as every rank's, and the share of each in the update's loss, which is
        over `total` sequences.

        A pass that is there only because another rank has one more takes the first cohort, with no share.
        """
        rank, count, size = self._ranks.rank, self._ranks.count, self._compute.micro_cohorts
        passes = len(list(_slices(cohorts[::count], size)))
        own = [self._objective.sequences(each, self.version) for each in _slices(cohorts[rank::count], size)]
        parts = [(sequences, len(sequences) / total) for sequences in own]
        if len(parts) < passes:
            parts.append((self._objective.sequences(cohorts[:1], self.version), 0.0))
        return parts

    def _backward(self, parts: Sequence[tuple[list[TrainingSequence], float]]) -> tuple[float, dict[str, float]]:
        """Gradients, left with the weights; loss and figures of all ranks."""
        loss, figures = torch.zeros((), dtype=torch.float64), dict[str, float]()
        for sequences, share in parts:
            part_loss, part_figures = self._objective.loss(self._inputs(sequences))
            # FSDP takes the mean of the ranks' gradients.
            (part_loss * (share * self._ranks.count)).backward()  # type: ignore[no-untyped-call]
            loss = loss.to(part_loss.device) + part_loss.detach().double() * share
            for name, value in part_figures.items():
                figures[name] = figures.get(name, 0.0) + (value * share if share else 0.0)
        shares = torch.tensor(list(figures.values()), dtype=torch.float64, device=loss.device)
        total, *means = self._ranks.sum(torch.cat([loss[None], shares])).tolist()
        return total, dict(zip(figures, means, strict=True))

    @torch.no_grad()
    def _gives_numbers(self, sequence: TrainingSequence) -> bool:
        """By a look at all weights and a few words."""
        logps_1T, _ = self._score(self._scorer, [sequence.prefix[-8:]], [sequence.suffix[:8]])
        finite = logps_1T.isfinite().all() & _all_finite(self._weights.values())
        return self._ranks.all(finite)

    def _inputs(self, sequences: list[TrainingSequence]) -> LossInputs:
        prefixes = [sequence.prefix for sequence in sequences]
        suffixes = [sequence.suffix for sequence in sequences]
        reference_BT = None
        if self._reference is not None:
            with torch.no_grad():
                reference_BT, _ = self._score(self._reference, prefixes, suffixes)
        policy_BT, mask_BT = self._score(self._scorer, prefixes, suffixes)
        return LossInputs(sequences, policy_BT, reference_BT, mask_BT)

    def _score(
        self, scorer: SuffixScorer, prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        if self._ranks.count > 1:
            # FSDP looks into lists, token by token, for tensors to move and to round; not into these.
            logps_BT, mask_BT = scorer(UserList(prefixes), UserList(suffixes))
            return logps_BT, mask_BT
        with rounded(self._compute, next(scorer.parameters()).device):
            logps_BT, mask_BT = scorer(prefixes, suffixes)
        return logps_BT, mask_BT

    @torch.no_grad()
    def _give_out(self) -> None:
        """The weights of all ranks into the model of rank 0."""
        if self._ranks.count > 1:
            given = self.model.parameters() if self.model else [None] * len(self._weights)
            for weights, target in zip(self._weights.values(), given, strict=True):
                values = whole(weights)
                if target is not None:
                    target.copy_(values)

    @torch.no_grad()
    def _refresh(self) -> None:
        """Every rank its part."""
        for name, reference in self._reference_weights.items():
            part(reference).copy_(part(self._weights[name]))

    def _moments(self) -> Moments:
        with self._ranks.together():
            moments: dict[str, dict[str, Tensor]] = {}
            for name, weights in self._weights.items():
                if own := self.optimizer.state.get(weights):
                    gathered = {moment: whole(values) for moment, values in own.items()}
                    if self._keeps_reference and name in self._reference_weights:
                        gathered[_REFERENCE] = whole(self._reference_weights[name])
                    if self._ranks.count == 1:
                        moments[name] = gathered
                    elif self._ranks.rank == 0:
                        moments[name] = {moment: values.cpu() for moment, values in gathered.items()}
        return moments

    @torch.no_grad()
    def _restore(self, version: int, names: Mapping[str, Sequence[str]], moments: Moments | None = None) -> None:
        given = self.model.state_dict() if self.model else {}
        with self._ranks.together():
            for name, weights in self._weights.items():
                if self._ranks.count > 1:
                    fill(weights, given.get(name), self._ranks)
                for moment in names.get(name, ()):
                    if moment == _REFERENCE:
                        self._keeps_reference = True
                        reference = self._reference_weights.get(name)
                        if reference is not None:
                            fill(reference, moments[name][moment] if moments else None, self._ranks)
                        continue
                    # AdamW counts a weight's steps in a tensor of one number; its other moments are like the weight.
                    empty = torch.zeros((), device=weights.device) if moment == "step" else torch.zeros_like(weights)
                    values = moments[name][moment] if moments else None
                    self.optimizer.state[weights][moment] = fill(empty, values, self._ranks)
        self.version = version


def _all_finite(weights: Iterable[Tensor]) -> Tensor:
    """In one pass over them: the largest is finite."""
    held = [own.detach() for own in map(part, weights) if own.numel()]
    return torch.nn.utils.get_total_norm(held, math.inf).isfinite()


def _slices(cohorts: Sequence[PolicyCohort], size: int | None) -> Iterator[list[PolicyCohort]]:
    remaining = iter(cohorts)
    while taken := list(islice(remaining, size or len(cohorts))):
        yield taken
