"""How long GPUs take over the work of a step, and what their memory must hold. Pure.

Reading a prompt and an update are bound by arithmetic: FLOPs over FLOP/s, times the share that is reached. Writing
tokens is bound by memory, or by arithmetic where that takes longer: for every token of the sequences that a replica
decodes at once it reads its weights once (of a model with experts, those that some token meets) and the keys and
values of each sequence. Communication within a replica is not counted: the shares stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.planning.hardware import Gpu
from preceptor_trainer.planning.models import ModelSizes, Span, forward_flops
from preceptor_trainer.planning.stages import WITH_REFERENCE, UpdateWork, tokens

USABLE = 0.9
"""Of a GPU's memory; the rest is the driver's, buffers and fragments."""
_LEAST_FOR_KV = 0.2
"""Of what is usable, at least."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number."""


@dataclass(frozen=True)
class Replica:
    """A model on `gpus` GPUs, its weights split over them; it decodes `sequences` at once, of so many tokens."""

    gpus: int
    sequences: int
    bytes: float
    """Weights, and the sequences' keys and values, on each GPU."""


def replica(model: ModelSizes, gpu: Gpu, context: float, most: int) -> Replica:
    """The smallest that holds the weights and leaves room; `context` is the mean length of a sequence."""
    gpus = 1
    while model.bytes > gpus * gpu.memory * USABLE * (1 - _LEAST_FOR_KV):
        gpus *= 2
    room = gpus * gpu.memory * USABLE - model.bytes
    each = max(1.0, context * model.kv_bytes_per_token)
    sequences = max(1, min(most, int(room / each)))
    return Replica(gpus, sequences, (model.bytes + sequences * each) / gpus)


def read_seconds(model: ModelSizes, spans: Sequence[Span], gpu: Gpu, mfu: float) -> float:
    """GPU-seconds of reading prompts."""
    return forward_flops(model, spans) / (gpu.flops * mfu)


def write_seconds(
    model: ModelSizes, spans: Sequence[Span], gpu: Gpu, on: Replica, *, mfu: float, bandwidth: float
) -> float:
    """GPU-seconds of writing tokens."""
    written = tokens(spans)
    if not written:
        return 0.0
    steps = written / on.sequences
    by_memory = (weights_read(model, on.sequences) + on.sequences * mean_context(spans) * model.kv_bytes_per_token) / (
        gpu.bandwidth * bandwidth
    )
    by_arithmetic = forward_flops(model, spans) / steps / (gpu.flops * mfu)
    return steps * max(by_memory, by_arithmetic)


def mean_context(spans: Sequence[Span]) -> float:
    """Of a token that is written."""
    return sum(span.total * (span.context + span.tokens / 2) for span in spans) / tokens(spans)


def weights_read(model: ModelSizes, at_once: int) -> float:
    """Bytes for one token of each of so many sequences: of the experts, those that one of them is sent to."""
    unmet = (1 - model.active_experts / model.experts) ** at_once
    experts = model.layers * model.experts * model.expert
    return (model.parameters - experts * unmet) * model.weight_bytes


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each of the trainer's GPUs, the states split over them evenly."""

    states: float
    """Weights, gradients, two moments, and the reference."""
    activations: float
    logits: float

    @property
    def bytes(self) -> float:
        return self.states + self.activations + self.logits


def training_memory(config: TrainConfig, work: UpdateWork, gpus: int) -> TrainingMemory:
    """An estimate: activations are those of the layers, and float32 logits with what softmax makes of them."""
    size, computed = BYTES["float32"], BYTES[config.compute.precision]
    copies = 5 if config.objective.name in WITH_REFERENCE else 4
    cohorts = -(-config.cohorts_per_step // gpus)
    share = min(cohorts, config.compute.micro_cohorts or cohorts) / config.cohorts_per_step
    spans = work.shared if work.shares else work.naive
    at_once = share * tokens(spans)
    layers = work.model.layers * work.model.saved_per_token
    if config.compute.activation_checkpointing:
        layers = work.model.layers * work.model.hidden + work.model.saved_per_token
    logits = 3 * 4 * work.model.vocab * share * sum(span.count * span.logits for span in spans)
    return TrainingMemory(copies * size * work.model.parameters / gpus, at_once * layers * computed, logits)


def rollout_memory(config: TrainConfig, model: ModelSizes, prefix: int) -> float:
    """Bytes that rollouts take in the trainer's process (`rollouts.engine: torch`), an estimate: the weights they are
    sampled from, the next ones and those before; keys and values of a step's cohorts, each prefix once; logits, with
    what sampling makes of them.
    """
    if not config.pool.rollouts:
        return 0.0
    size = BYTES["float32"]
    rows = config.cohorts_per_step * config.pool.rollouts
    kept = config.cohorts_per_step * prefix + rows * config.continuation_tokens
    weights = 3 * size * model.parameters
    return (
        weights + kept * model.model_copy(update={"kv_bytes": size}).kv_bytes_per_token + 4 * size * rows * model.vocab
    )
