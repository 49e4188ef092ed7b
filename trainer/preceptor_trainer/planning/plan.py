"""The plan: pools of GPUs, how many each gets, seconds and hours. Pure.

    trainer        the update                         any number of GPUs that its memory allows
    policy engine  rollouts                           whole replicas
    teacher        judging, and rewriting             whole replicas
    rewriter       rewriting, if it has its own model

GPUs go, a replica at a time, to the pool that takes longest. With staleness all pools work at once, and a step takes as
long as the slowest, times the overlap's share; without, they take turns. The weights are sent to the policy engine
after each update: trainer and policy engine both wait for that.
Raises `TrainError` if the GPUs are too few to begin with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.capacity import (
    BYTES,
    USABLE,
    Replica,
    TrainingMemory,
    mean_context,
    read_seconds,
    replica,
    training_memory,
    write_seconds,
)
from preceptor_trainer.planning.estimates import Estimate
from preceptor_trainer.planning.hardware import GPUS, Gpu
from preceptor_trainer.planning.settings import PlanSettings
from preceptor_trainer.planning.stages import EngineWork, UpdateWork, engine_work, tokens, update_work


@dataclass(frozen=True)
class Stage:
    """What a stage does in one step. Tokens: `sent` in prompts (or trained on the naive way), `computed` of them,
    `written`."""

    name: str
    model: str
    calls: float
    sent: float
    computed: float
    written: float
    flops: float
    gpu_seconds: float


@dataclass(frozen=True)
class Pool:
    """GPUs that do the same. It takes `seconds` over a step: for its share of the work, and waiting for weights."""

    name: str
    stages: tuple[str, ...]
    unit: int
    """GPUs of a replica."""
    gpus: int
    gpu_seconds: float
    waits: float
    sequences: int
    memory: float
    """Bytes on each GPU."""

    @property
    def seconds(self) -> float:
        return self.gpu_seconds / self.gpus + self.waits


@dataclass(frozen=True)
class Plan:
    """Of a run."""

    gpu: Gpu
    steps: int
    stages: tuple[Stage, ...]
    naive_update_flops: float
    """Of the update, if no prefix were shared."""
    pools: tuple[Pool, ...]
    step_seconds: float
    overlapped: bool
    sync_bytes: float
    training_memory: TrainingMemory
    estimates: Mapping[str, Estimate]

    @property
    def gpus(self) -> int:
        return sum(pool.gpus for pool in self.pools)

    @property
    def hours(self) -> float:
        return self.steps * self.step_seconds / 3600

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.hours

    @property
    def fits(self) -> bool:
        """Whether every pool's memory holds what it must."""
        return all(map(self.fits_in, self.pools))

    def fits_in(self, pool: Pool) -> bool:
        """Whether the memory of the pool's GPUs does."""
        return pool.memory <= USABLE * self.gpu.memory


def make_plan(config: TrainConfig, settings: PlanSettings, shares: Mapping[str, Estimate]) -> Plan:
    """Of `config`, on `settings.gpus` GPUs."""
    gpu = GPUS[settings.gpu]
    update, engines = update_work(config, settings), engine_work(config, settings)
    sync_bytes = update.model.parameters * BYTES["float32"]
    sync_seconds = sync_bytes / shares["network"].value if config.pool.rollouts else 0.0
    trained = _trained(update, gpu, shares)
    pools = [Pool("trainer", ("update",), 1, 1, trained.gpu_seconds, sync_seconds, 0, 0.0)]
    stages: list[Stage] = []
    for name, members in _grouped(engines, settings).items():
        pool, of_pool = _engine_pool(name, members, gpu, settings.sequences, shares)
        pools.append(replace(pool, waits=sync_seconds if name == "policy engine" else 0.0))
        stages += of_pool
    balanced = _balance([_smallest(pool, config, update, gpu) for pool in pools], settings.gpus)
    memory = training_memory(config, update, balanced[0].gpus)
    overlapped = config.staleness.limit > 0
    seconds = [pool.seconds for pool in balanced]
    return Plan(
        gpu=gpu,
        steps=config.steps,
        stages=(*stages, trained),
        naive_update_flops=update.naive_flops,
        pools=(replace(balanced[0], memory=memory.bytes), *balanced[1:]),
        step_seconds=max(seconds) * shares["overlap"].value if overlapped else sum(seconds),
        overlapped=overlapped,
        sync_bytes=sync_bytes if config.pool.rollouts else 0.0,
        training_memory=memory,
        estimates=shares,
    )


def _trained(work: UpdateWork, gpu: Gpu, shares: Mapping[str, Estimate]) -> Stage:
    """Sharing prefixes saves so much of what it saves by FLOPs, and at least nothing."""
    mfu, share = shares["update_mfu"].value, shares["shared_prefix"].value if work.shares else 1.0
    seconds = min(work.flops / share, work.naive_flops) / (gpu.flops * mfu)
    return Stage("update", work.model.name, 0, tokens(work.naive), work.tokens, 0, work.flops, seconds)


def _grouped(engines: Sequence[EngineWork], settings: PlanSettings) -> dict[str, list[EngineWork]]:
    """By pool."""
    groups: dict[str, list[EngineWork]] = {}
    for work in engines:
        own = "rewriter" if settings.rewriter and work.stage == "rewriting" else "teacher"
        groups.setdefault("policy engine" if work.stage == "rollouts" else own, []).append(work)
    return groups


def _engine_pool(
    name: str, members: Sequence[EngineWork], gpu: Gpu, most: int, shares: Mapping[str, Estimate]
) -> tuple[Pool, list[Stage]]:
    model = members[0].model
    written = [span for work in members for span in work.written]
    on = replica(model, gpu, mean_context(written), most)
    stages = [_served(work, gpu, on, shares) for work in members]
    seconds = sum(stage.gpu_seconds for stage in stages)
    names = tuple(stage.name for stage in stages)
    return Pool(name, names, on.gpus, on.gpus, seconds, 0.0, on.sequences, on.bytes), stages


def _served(work: EngineWork, gpu: Gpu, on: Replica, shares: Mapping[str, Estimate]) -> Stage:
    mfu = shares["prefill_mfu"].value
    seconds = read_seconds(work.model, work.read, gpu, mfu) + write_seconds(
        work.model, work.written, gpu, on, mfu=mfu, bandwidth=shares["decode_bandwidth"].value
    )
    if work.stage == "judging":
        seconds /= shares["judge_service"].value
    computed, written = tokens(work.read), tokens(work.written)
    return Stage(work.stage, work.model.name, work.calls, work.sent, computed, written, work.flops, seconds)


def _smallest(pool: Pool, config: TrainConfig, work: UpdateWork, gpu: Gpu) -> Pool:
    """The trainer begins with as many GPUs as its states need."""
    if pool.name != "trainer":
        return pool
    gpus = 1
    while gpus < 4096 and training_memory(config, work, gpus).states > USABLE * gpu.memory / 2:
        gpus += 1
    return replace(pool, gpus=gpus)


def _balance(pools: Sequence[Pool], gpus: int) -> list[Pool]:
    """The slowest gets another replica, as long as there are GPUs for one."""
    given, left = list(pools), gpus - sum(pool.gpus for pool in pools)
    if left < 0:
        needed = ", ".join(f"{pool.gpus} for the {pool.name}" for pool in pools)
        raise TrainError(f"plan.gpus is {gpus}, and the run takes {gpus - left} to begin with: {needed}")
    while True:
        slowest = max(range(len(given)), key=lambda place: given[place].seconds)
        if given[slowest].unit > left:
            return given
        left -= given[slowest].unit
        given[slowest] = replace(given[slowest], gpus=given[slowest].gpus + given[slowest].unit)
