"""From a study to its runs: one for each variant and seed, with the configuration that it trains with. Pure.

Guarantees: a run's `id` is a hash of all that decides what comes of it (configuration, start, judge, seed, sizes of the
evaluation), and of nothing else; so two studies that share a run share its result, and a definition that changes makes
another run. Steps that a variant takes from another's FLOPs are counted as `preceptor plan` counts: an upper bound, in
which every text is judged and every window rewritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from preceptor_client.config import describe
from preceptor_client.stack import Endpoints
from preceptor_trainer.config import CheckpointConfig, ModelConfig, TrainConfig
from preceptor_trainer.demo.plan import DemoFolder, sip, windows
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.nano.base import LAYERS as POLICY_LAYERS
from preceptor_trainer.nano.labelled import MIN_PREFIX_WORDS, PREFIX_WORDS
from preceptor_trainer.nano.model import HEAD_WIDTH, WIDTH
from preceptor_trainer.nano.teaching import LAYERS as TEACHER_LAYERS
from preceptor_trainer.nano.tokenizer import policy_tokenizer, teacher_tokenizer
from preceptor_trainer.planning.models import ModelSizes
from preceptor_trainer.planning.settings import AxisCost, PlanSettings
from preceptor_trainer.planning.stages import engine_work, update_work
from preceptor_trainer.study.definition import BASE, Study, StudySize, Variant

_SPARE = 2
"""Documents for each cohort that is trained on: those that tie are dropped and made up for."""


@dataclass(frozen=True)
class StudyFolder:
    """Where everything is kept: shared by all studies, so that what one has made the next one finds."""

    root: Path

    def world(self, seed: int, size: StudySize) -> DemoFolder:
        """Corpora and starting models of a seed."""
        return DemoFolder(self.root / "worlds" / f"{seed}-{size.pretrain_documents}-{size.pretrain_steps}")

    def run(self, id: str) -> Path:
        """What a run trains in."""
        return self.root / "runs" / id

    def result(self, id: str) -> Path:
        """What was measured of a run; there when the run is done."""
        return self.run(id) / "result.json"

    def services(self, teacher: str) -> Path:
        """Data and logs of a stack with that judge."""
        return self.root / "services" / teacher


@dataclass(frozen=True)
class Run:
    """A variant with a seed. `plan` has neither places nor addresses yet; it is None for what is not trained."""

    variant: Variant
    seed: int
    size: StudySize
    plan: TrainConfig | None

    @property
    def documents(self) -> int:
        """Of the corpus to train on."""
        return self.plan.steps * self.plan.cohorts_per_step * _SPARE if self.plan else 0

    @cached_property
    def id(self) -> str:
        size = asdict(self.size)
        decides = {
            "seed": self.seed,
            "start": self.variant.start,
            "teacher": self.variant.teacher_steps,
            "hold": self.variant.hold,
            "config": self.plan and _decisive(self.plan),
            "size": {
                name: size[name]
                for name in ("pretrain_documents", "pretrain_steps", "held_out", "judged", "second_steps")
            },
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def flops(self) -> float:
        """Of the whole training, policy and teacher together."""
        return self.plan.steps * flops_of_a_step(self.plan) if self.plan else 0.0

    def start(self, folder: StudyFolder) -> Path:
        """The model that it goes on from."""
        return folder.world(self.seed, self.size).run(self.variant.start)

    def corpus(self, folder: StudyFolder) -> Path:
        """What it trains on. One that is longer begins with the same documents."""
        return folder.world(self.seed, self.size).root / "data" / f"train-{self.documents}.jsonl"

    def config(self, folder: StudyFolder, endpoints: Endpoints, threads: int) -> TrainConfig:
        """The plan in its place. Raises ValueError for what is not trained."""
        if self.plan is None:
            raise ValueError(f"{self.variant.name} is not trained")
        judge = {"redis_url": endpoints.redis_url}
        if self.variant.hold:
            judge["namespace"] = f"held-{self.id}"
        return self.plan.model_copy(
            update={
                "run": self.id,
                "out": folder.run(self.id),
                "threads": threads,
                "model": ModelConfig(path=str(self.start(folder))),
                "data": windows(self.corpus(folder)),
                "judge": self.plan.judge.model_copy(update=judge),
                "rewrite": self.plan.rewrite.model_copy(update={"url": endpoints.rewrite_url}),
                "checkpoint": CheckpointConfig(every=max(1, self.plan.steps // 4), keep=1),
            }
        )


def plan_runs(study: Study, seeds: int, only: Collection[str] = ()) -> list[Run]:
    """All runs, seed by seed, each beginning with the base model; with `only`, those variants and the base model.

    Raises `TrainError` for a variant that there is none of, or that cannot be trained.
    """
    plans = {variant.name: _plan(study, variant) for variant in study.variants if variant.trained}
    for variant in study.variants:
        if variant.flops_of:
            flops = {name: flops_of_a_step(plans[name]) for name in (variant.name, variant.flops_of)}
            steps = round(plans[variant.flops_of].steps * flops[variant.flops_of] / flops[variant.name])
            plans[variant.name] = plans[variant.name].model_copy(update={"steps": max(1, steps)})
    if unknown := set(only) - {variant.name for variant in study.variants}:
        known = ", ".join(variant.name for variant in study.variants)
        raise TrainError(f"study {study.name} has no variant {', '.join(sorted(unknown))}: there is {known}")
    chosen = [variant for variant in study.variants if not only or variant.name in only]
    return [
        Run(variant, seed, study.size, _seeded(plans.get(variant.name), seed))
        for seed in range(seeds)
        for variant in (BASE, *chosen)
    ]


def flops_of_a_step(config: TrainConfig) -> float:
    """Of policy and teacher: rollouts, rewrites, verdicts and the update."""
    settings = _nano_costs()
    return sum(work.flops for work in engine_work(config, settings)) + update_work(config, settings).flops


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with other values for some keys. Raises pydantic's ValidationError."""
    values = config.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            inner = place.get(section) or {}
            place[section] = inner
            place = inner
        place[last] = value
    return TrainConfig.model_validate(values)


def _plan(study: Study, variant: Variant) -> TrainConfig:
    nowhere = DemoFolder(Path("world"))
    demo = sip(nowhere, study.size, seed=0, threads=1, redis_url="redis://redis", rewrite_url="http://rewrite")
    try:
        return changed(demo.model_copy(update={"run": "run"}), variant.changes)
    except ValidationError as error:
        raise TrainError(f"study {study.name}, variant {variant.name}: {one_line(describe(error))}") from None


def _seeded(plan: TrainConfig | None, seed: int) -> TrainConfig | None:
    return plan and plan.model_copy(update={"seed": seed})


def _nano_costs() -> PlanSettings:
    """The nano models' sizes, and their rubrics': a word or two of instructions, one word of an answer."""
    return PlanSettings(
        policy=_sizes("policy", POLICY_LAYERS, len(policy_tokenizer())),
        judge=_sizes("teacher", TEACHER_LAYERS, len(teacher_tokenizer())),
        prefix_tokens=(MIN_PREFIX_WORDS + PREFIX_WORDS) // 2,
        axes={
            "quality": AxisCost(mode="pairwise", instructions=4, completion=1),
            "safety": AxisCost(instructions=2, shows_prefix=False, completion=1),
            "factuality": AxisCost(instructions=3, completion=1),
        },
        rewriting=AxisCost(instructions=3, completion=16),
    )


def _sizes(name: str, layers: int, vocab: int) -> ModelSizes:
    return ModelSizes(
        name=name, layers=layers, hidden=WIDTH, heads=WIDTH // HEAD_WIDTH, mlp=2 * WIDTH, vocab=vocab, tied=True
    )


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """All of it, but for what it has no use of: a section that came later makes no other run of those without it."""
    return config.model_dump(mode="json", exclude=None if config.thoughts else {"thoughts"})


def grouped(runs: Collection[Run]) -> Iterator[tuple[int | None, list[Run]]]:
    """By the judge that trains them, so that each stack is started once; the nano teacher as it is comes first."""
    for teacher in sorted({run.variant.teacher_steps for run in runs}, key=lambda steps: (steps is not None, steps)):
        yield teacher, [run for run in runs if run.variant.teacher_steps == teacher]
