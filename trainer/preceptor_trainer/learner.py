"""The update: cohorts in, weights moved.

In: judged cohorts. Out: `UpdateStats`. Holds the policy, AdamW with its schedule and, for objectives that need one, a
frozen copy of the starting weights. Guarantees: the same mask for policy and reference; nothing moves when loss or
gradient is not a number, and weights that give none are not given out: `TrainError` in both cases. Blocks while it
computes: call it in a thread.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from preceptor_trainer.cohorts import PolicyCohort
from preceptor_trainer.config import ComputeConfig, OptimizerConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.objectives.objective import LossInputs, Objective, TrainingSequence
from preceptor_trainer.scoring import SuffixScorer, make_scorer


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
    """`model` is moved in place; `version` counts its updates. Raises `TrainError` if it does not hold numbers."""

    def __init__(
        self, model: Any, objective: Objective, config: OptimizerConfig, compute: ComputeConfig, steps: int
    ) -> None:
        # Without dropout: log-probabilities must equal those that the policy engine sampled with.
        self.model = model.eval()
        if not _all_finite(model):
            broken = next(name for name, weights in model.named_parameters() if not weights.isfinite().all())
            raise TrainError(f"the policy's weights are not all numbers (NaN or infinity in {broken}): set model.path")
        self.version = 0
        self._objective = objective
        self._config = config
        self._compute = compute
        self._steps = steps
        self._scorer = make_scorer(self.model, compute.shared_prefix)
        self._reference: SuffixScorer | None = None
        if objective.needs_reference:
            self._reference = copy.deepcopy(self._scorer).requires_grad_(False)
        matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            fused=True,
        )

    def update(self, cohorts: Sequence[PolicyCohort]) -> UpdateStats:
        """One optimizer step on `cohorts`."""
        parts = [self._objective.sequences(part, self.version) for part in _parts(cohorts, self._compute.micro_cohorts)]
        total = sum(map(len, parts))
        loss, figures = 0.0, dict[str, float]()
        self.optimizer.zero_grad(set_to_none=True)
        for sequences in parts:
            share = len(sequences) / total
            part_loss, part_figures = self._objective.loss(self._inputs(sequences))
            (part_loss * share).backward()  # type: ignore[no-untyped-call]
            loss += part_loss.item() * share
            for name, value in part_figures.items():
                figures[name] = figures.get(name, 0.0) + value * share
        limit = self._config.clip if self._config.clip is not None else math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise TrainError(
                f"update {self.version} has loss {loss} and gradient norm {grad_norm}: lower optimizer.lr or set "
                "optimizer.clip; it moved nothing, and the checkpoints so far can be gone on from"
            )
        lr = learning_rate(self.version, self._steps, self._config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if not self._gives_numbers(parts[0][0]):
            raise TrainError(
                f"after update {self.version}, with learning rate {lr:g}, the policy gives no numbers any more: lower "
                "optimizer.lr; no checkpoint has these weights, and those so far can be gone on from"
            )
        self.version += 1
        tokens = sum(len(sequence.suffix) for sequences in parts for sequence in sequences)
        return UpdateStats(loss, lr, grad_norm, tokens, figures)

    @torch.no_grad()
    def _gives_numbers(self, sequence: TrainingSequence) -> bool:
        logps_1T, _ = self._scorer([sequence.prefix], [sequence.suffix])
        return bool(logps_1T.isfinite().all()) and _all_finite(self.model)

    def _inputs(self, sequences: list[TrainingSequence]) -> LossInputs:
        prefixes = [sequence.prefix for sequence in sequences]
        suffixes = [sequence.suffix for sequence in sequences]
        reference_BT = None
        if self._reference is not None:
            with torch.no_grad():
                reference_BT, _ = self._reference(prefixes, suffixes)
        policy_BT, mask_BT = self._scorer(prefixes, suffixes)
        return LossInputs(sequences, policy_BT, reference_BT, mask_BT)


def _all_finite(model: Any) -> bool:
    return bool(torch.stack([weights.isfinite().all() for weights in model.parameters()]).all())


def _parts(cohorts: Sequence[PolicyCohort], size: int | None) -> Iterator[list[PolicyCohort]]:
    remaining = iter(cohorts)
    while part := list(islice(remaining, size or len(cohorts))):
        yield part
