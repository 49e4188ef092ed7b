"""Update and sampling against K, cohorts a step and prefix length.

The prefix is the one place where attention must grow with the square. So the update is measured once more with a model
whose attention passes on its values and looks at nothing: what is left must be linear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import AttentionInterface

from benchmarks.growth_parts.curves import Curve, Wanted
from benchmarks.growth_parts.memory import peak_bytes
from benchmarks.growth_parts.policy import cohorts, policy
from benchmarks.measuring.sides import interleaved, medians
from preceptor_trainer.config import ComputeConfig, ObjectiveConfig, OptimizerConfig
from preceptor_trainer.learner import Learner
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.rollouts.torch_engine import TorchEngine

PREFIX, SUFFIX, COHORTS, K = 128, 32, 4, 4
Job = Callable[[], object]


def update_curves(sizes: dict[str, Sequence[int]], rounds: int) -> Iterator[Curve]:
    """GRPO over all candidates, so that every one of them is computed."""
    shared, alone = _learner(policy(), "auto"), _learner(policy(attention=_no_attention()), "off")

    def job(learner: Learner, count: int, k: int, prefix: int) -> Job:
        batch = cohorts(count, k, prefix, SUFFIX)
        return lambda: learner.update(batch)

    yield from _both("update", "candidates", {k: job(shared, COHORTS, k, PREFIX) for k in sizes["k"]}, rounds)
    yield from _both("update", "cohorts", {n: job(shared, n, K, PREFIX) for n in sizes["cohorts"]}, rounds)
    with_attention = {n: job(shared, 1, K, n) for n in sizes["prefix"]}
    without = {n: job(alone, 1, K, n) for n in sizes["prefix"]}
    yield from _both("update", "prefix tokens", with_attention, rounds, wanted=None)
    yield from _both("update without attention", "prefix tokens", without, rounds)


def sampling_curves(sizes: dict[str, Sequence[int]], rounds: int) -> Iterator[Curve]:
    """The sampler in the trainer's process: its seconds. What it takes of memory is too little here to be told from
    what the allocator keeps."""
    engine = TorchEngine(policy())

    def job(count: int, k: int, prefix: int) -> Job:
        prefixes = [cohort.window.prefix for cohort in cohorts(count, 1, prefix, 1)]
        return lambda: asyncio.run(engine.sample(prefixes, k=k, n_tokens=SUFFIX, seed=0))

    yield _seconds("sampling", "candidates", {k: job(COHORTS, k, PREFIX) for k in sizes["k"]}, rounds)
    yield _seconds("sampling", "cohorts", {n: job(n, K, PREFIX) for n in sizes["cohorts"]}, rounds)
    yield _seconds("sampling", "prefix tokens", {n: job(1, K, n) for n in sizes["prefix"]}, rounds, wanted=None)


def _learner(model: Any, shared_prefix: str) -> Learner:
    objective = make_objective(ObjectiveConfig(name="grpo"), SUFFIX)
    compute = ComputeConfig.model_validate({"shared_prefix": shared_prefix})
    return Learner(model, objective, OptimizerConfig(lr=1e-6), compute, steps=1_000_000)


def _both(
    part: str, against: str, jobs: dict[int, Job], rounds: int, *, wanted: Wanted | None = "linear"
) -> Iterator[Curve]:
    """Seconds and memory."""
    yield _seconds(part, against, jobs, rounds, wanted=wanted)
    yield Curve(part, against, "MB", list(jobs), [peak_bytes(job) / 1e6 for job in jobs.values()])


def _seconds(part: str, against: str, jobs: dict[int, Job], rounds: int, *, wanted: Wanted | None = "linear") -> Curve:
    seconds = medians(interleaved({str(size): job for size, job in jobs.items()}, rounds))
    return Curve(part, against, "s", list(jobs), list(seconds.values()), wanted)


def _no_attention() -> str:
    """Registers it."""

    def pass_on(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None

    AttentionInterface.register("none_at_all", pass_on)
    return "none_at_all"
