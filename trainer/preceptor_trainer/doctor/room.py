"""Memory for updates and rollouts, disk for checkpoints: what is needed, by the arithmetic of `planning`, against what
is free on this machine now."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from preceptor_client.checks import Check, available_memory_gb
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.capacity import BYTES, USABLE, rollout_memory, training_memory
from preceptor_trainer.planning.models import ModelSizes
from preceptor_trainer.planning.settings import PlanSettings
from preceptor_trainer.planning.stages import prefix_length, update_work
from preceptor_trainer.pretrained import device_named

_LESS = "lower compute.micro_cohorts or cohorts_per_step, set compute.activation_checkpointing"
_MOMENTS = 2


def check_memory(config: TrainConfig, sizes: ModelSizes) -> Iterator[Check]:
    """On the device of the run; if one GPU is too small, on the least number of this machine's that is not."""
    try:
        device = device_named(config.device)
    except TrainError as error:
        yield Check("memory", "failure", str(error), "set device")
        return
    if device.type == "cuda":
        frees = [float(torch.cuda.mem_get_info(place)[0]) for place in range(torch.cuda.device_count())]
        yield memory_found(config, sizes, frees, torch.cuda.get_device_name(device))
    else:
        yield memory_found(config, sizes, [available_memory_gb() * 1e9], "the CPU's memory")


def memory_found(config: TrainConfig, sizes: ModelSizes, frees: list[float], where: str) -> Check:
    """`frees` are the free bytes of each device. Pure."""
    needs = [needed_memory(config, sizes, ranks) for ranks in range(1, len(frees) + 1)]
    found = f"about {needs[0] / 1e9:.1f} GB needed, {frees[0] / 1e9:.1f} GB of {where} free"
    fits = [ranks for ranks, need in enumerate(needs, 1) if need <= USABLE * min(frees[:ranks])]
    if not fits:
        return Check("memory", "failure", found, f"{_LESS}, or use more or larger GPUs")
    if fits[0] == 1:
        return Check("memory", "ok", found)
    return Check("memory", "warning", found, f"{fits[0]} GPUs are enough: torchrun --nproc-per-node {fits[0]}")


def needed_memory(config: TrainConfig, sizes: ModelSizes, ranks: int) -> float:
    """Bytes on the first of so many ranks, which also samples the rollouts that need no server. Pure."""
    settings = PlanSettings(policy=sizes)
    need = training_memory(config, update_work(config, settings), ranks).bytes
    if config.rollouts.engine == "torch":
        need += rollout_memory(config, sizes, prefix_length(config, settings))
    return need


def check_disk(config: TrainConfig, sizes: ModelSizes) -> Iterator[Check]:
    """Under `out`, or where it will be made."""
    place = config.out.absolute()
    while not place.exists():
        place = place.parent
    yield disk_found(config, sizes, shutil.disk_usage(place).free, place)


def disk_found(config: TrainConfig, sizes: ModelSizes, free: float, place: Path) -> Check:
    """A checkpoint is the weights and the optimizer's moments. Those that are kept, the one being written and `final`
    are there at once. Pure."""
    checkpoints = (config.checkpoint.keep if config.checkpoint.every else 0) + 2
    need = checkpoints * (1 + _MOMENTS) * BYTES["float32"] * sizes.parameters
    found = f"about {need / 1e9:.1f} GB for {checkpoints} checkpoints, {free / 1e9:.1f} GB free at {place}"
    if need <= free:
        return Check("disk", "ok", found)
    return Check("disk", "failure", found, "make room, lower checkpoint.keep, or set out")
