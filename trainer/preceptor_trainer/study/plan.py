"""From a study to its runs: one for each variant and seed, with the configuration that it trains with. Pure.

Guarantees: a run's `id` is a hash of all that decides what comes of it (what differs from the configuration's defaults,
start, judge, seed, sizes of the evaluation, control), and of nothing else; so two studies that share a run share its
result, a definition that changes makes another run, and an option that is added does not. `training` is the same of the
training alone: runs that measure one policy behind several controls have it in common, and it is trained once. What a
run needs of others comes before it. Steps that a variant takes from another's FLOPs are counted as `preceptor plan`
counts: an upper bound, in which every text is judged and every window rewritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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

    def policy(self, id: str) -> Path:
        """What a run has come to."""
        return self.run(id) / "final"

    def result(self, id: str) -> Path:
        """What was measured of a run; there when the run is done."""
        return self.run(id) / "result.json"

    @property
    def teachers(self) -> Path:
        """Those that began as a policy."""
        return self.root / "teachers"

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
    needs: Mapping[str, Run] = field(default_factory=dict)
    """By the variant's name: the runs whose policies it begins with."""

    @property
    def documents(self) -> int:
        """Of the corpus to train on."""
        return self.plan.steps * self.plan.cohorts_per_step * _SPARE if self.plan else 0

    @cached_property
    def id(self) -> str:
        control = self.variant.control
        return self.training if control is None else _hash({**self._decides, "control": control})

    @cached_property
    def training(self) -> str:
        """The id of the run that trains the policy which is measured here."""
        return _hash(self._decides)

    @property
    def _decides(self) -> dict[str, Any]:
        size = asdict(self.size)
        return {
            "seed": self.seed,
            "start": self._origin(self.variant.start),
            "teacher": self.variant.teacher_steps,
            "teacher_from": self.variant.teacher_from and self._origin(self.variant.teacher_from),
            "hold": self.variant.hold,
            "config": self.plan and self.plan.model_dump(mode="json", exclude_defaults=True),
            "size": {
                name: size[name]
                for name in ("pretrain_documents", "pretrain_steps", "held_out", "judged", "second_steps")
            },
        }

    @property
    def flops(self) -> float:
        """Of the whole training, policy and teacher together."""
        return self.plan.steps * flops_of_a_step(self.plan) if self.plan else 0.0

    @property
    def teacher(self) -> tuple[int | None, str]:
        """What tells the judge that trains it from others: its updates, and the model that it begins as."""
        source = self.variant.teacher_from
        return self.variant.teacher_steps, f"{self._origin(source)} of seed {self.seed}" if source else ""

    def start(self, folder: StudyFolder) -> Path:
        """The model that it goes on from."""
        return self._model(self.variant.start, folder)

    def teacher_start(self, folder: StudyFolder) -> Path | None:
        """The model that its judge begins as; None if that begins at random."""
        return self._model(self.variant.teacher_from, folder) if self.variant.teacher_from else None

    def corpus(self, folder: StudyFolder) -> Path:
        """What it trains on. One that is longer begins with the same documents."""
        return folder.world(self.seed, self.size).root / "data" / f"train-{self.documents}.jsonl"

    def config(self, folder: StudyFolder, endpoints: Endpoints, threads: int) -> TrainConfig:
        """The plan in its place. Raises ValueError for what is not trained."""
        if self.plan is None:
            raise ValueError(f"{self.variant.name} is not trained")
        judge = {"redis_url": endpoints.redis_url}
        if self.variant.hold:
            judge["namespace"] = f"held-{self.training}"
        return self.plan.model_copy(
            update={
                "run": self.training,
                "out": folder.run(self.training),
                "threads": threads,
                "model": ModelConfig(path=str(self.start(folder))),
                "data": windows(self.corpus(folder)),
                "judge": self.plan.judge.model_copy(update=judge),
                "rewrite": self.plan.rewrite.model_copy(update={"url": endpoints.rewrite_url}),
                "checkpoint": CheckpointConfig(every=max(1, self.plan.steps // 4), keep=1),
            }
        )

    def _origin(self, name: str) -> str:
        """A model's name in ids: a starting model's own, or the id of the run that came to it."""
        return self.needs[name].training if name in self.needs else name

    def _model(self, name: str, folder: StudyFolder) -> Path:
        if name in self.needs:
            return folder.policy(self.needs[name].training)
        return folder.world(self.seed, self.size).run(name)


def plan_runs(study: Study, seeds: int, only: Collection[str] = ()) -> list[Run]:
    """All runs, seed by seed, each beginning with the base model; with `only`, those variants, what they need, and the
    base model.

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
    chosen = set(only) or {variant.name for variant in study.variants}
    for variant in reversed(study.variants):  # what one needs is above it
        if variant.name in chosen:
            chosen.update(variant.needs)
    variants = [BASE, *(variant for variant in study.variants if variant.name in chosen)]
    return [run for seed in range(seeds) for run in _of_seed(variants, plans, study.size, seed)]


def grouped(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """By the judge that trains them, so that each stack is started seldom; none before another of `runs` that it needs.

    `runs` are in the order of the plan.
    """
    left = list(runs)
    while left:
        waiting = {run.id for run in left}
        group, others = [], []
        for run in left:
            if run.teacher == left[0].teacher and waiting.isdisjoint(need.id for need in run.needs.values()):
                group.append(run)
                waiting.discard(run.id)
            else:
                others.append(run)
        yield group
        left = others


def flops_of_a_step(config: TrainConfig) -> float:
    """Of policy and teacher: rollouts, rewrites, verdicts and the update."""
    settings = nano_costs()
    return sum(work.flops for work in engine_work(config, settings)) + update_work(config, settings).flops


def nano_costs() -> PlanSettings:
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
        plan = changed(demo.model_copy(update={"run": "run"}), variant.changes)
    except ValidationError as error:
        raise TrainError(f"study {study.name}, variant {variant.name}: {one_line(describe(error))}") from None
    if variant.control and variant.control not in {each.token for each in plan.controls or ()}:
        raise TrainError(f"study {study.name}, variant {variant.name}: {variant.control} is none of its controls")
    return plan


def _hash(decides: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def _of_seed(
    variants: Sequence[Variant], plans: Mapping[str, TrainConfig], size: StudySize, seed: int
) -> Iterator[Run]:
    made: dict[str, Run] = {}
    for variant in variants:
        plan = plans.get(variant.name)
        seeded = plan and plan.model_copy(update={"seed": seed})
        run = Run(variant, seed, size, seeded, {name: made[name] for name in variant.needs})
        made[variant.name] = run
        yield run


def _sizes(name: str, layers: int, vocab: int) -> ModelSizes:
    return ModelSizes(
        name=name, layers=layers, hidden=WIDTH, heads=WIDTH // HEAD_WIDTH, mlp=2 * WIDTH, vocab=vocab, tied=True
    )
