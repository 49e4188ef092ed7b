"""What one step does, stage by stage. Pure.

    rollouts    read every prefix once, write K suffixes after it
    rewriting   read prefix and suffix, write the rewrite
    judging     see `calls`
    update      forward and backward of the policy over what the objective trains on, forward of the reference

In: a `TrainConfig` and sizes. Out: `EngineWork` and `UpdateWork`. Every document is taken to be long enough, every
text to be a text of its own, and nothing to fail: an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preceptor_client.contract import Order, Sampling, ScheduleName
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.planning.calls import Asked, comparisons, pairwise, pointwise
from preceptor_trainer.planning.models import ModelSizes, Span, forward_flops
from preceptor_trainer.planning.settings import AxisCost, PlanSettings, policy_sizes, rewriter_sizes, teacher_sizes

SEQUENCES = {"dpo": 2, "rf_nll": 1, "nll": 1}
"""Of a cohort, that an update trains on; GRPO takes the whole pool."""
WITH_REFERENCE = {"dpo"}
JUDGED_BY_DEFAULT = (ScheduleName.ALL_PAIRS, Order.BOTH)
"""What a judge service does that is told nothing else."""


@dataclass(frozen=True)
class EngineWork:
    """Of an inference engine: `sent` prompt tokens in `calls`, of which it computes `read`; it generates `written`."""

    stage: str
    model: ModelSizes
    calls: float
    sent: float
    read: tuple[Span, ...]
    written: tuple[Span, ...]

    @property
    def flops(self) -> float:
        return forward_flops(self.model, self.read + self.written)


@dataclass(frozen=True)
class UpdateWork:
    """Of the trainer: the spans of one forward pass, sharing prefixes and not, and how many forwards' worth the policy
    and the reference take."""

    model: ModelSizes
    shared: tuple[Span, ...]
    naive: tuple[Span, ...]
    passes: int
    shares: bool

    @property
    def flops(self) -> float:
        return self.passes * forward_flops(self.model, self.shared if self.shares else self.naive)

    @property
    def naive_flops(self) -> float:
        return self.passes * forward_flops(self.model, self.naive)

    @property
    def tokens(self) -> float:
        """Of one pass."""
        return tokens(self.shared if self.shares else self.naive)


def tokens(spans: Iterable[Span]) -> float:
    """Of all of them."""
    return sum(span.total for span in spans)


def engine_work(config: TrainConfig, settings: PlanSettings) -> list[EngineWork]:
    """Rollouts, rewriting and judging, as far as the run has them."""
    cohorts, pool = config.cohorts_per_step, config.pool
    prefix, suffix = prefix_length(config, settings), config.data.suffix_tokens
    work = []
    if pool.rollouts:
        read = (Span(cohorts, prefix, logits=1),)
        longest = config.continuation_tokens
        written = (Span(cohorts * pool.rollouts, longest, prefix, logits=longest),)
        work.append(EngineWork("rollouts", policy_sizes(settings, config), cohorts, cohorts * prefix, read, written))
    if pool.rewrite:
        work.append(_rewriting(rewriter_sizes(settings), settings.rewriting, cohorts, prefix, suffix))
    if config.judged:
        work.append(_judging(config, settings, prefix))
    return work


def update_work(config: TrainConfig, settings: PlanSettings) -> UpdateWork:
    """Of one update."""
    cohorts, prefix, suffix = config.cohorts_per_step, prefix_length(config, settings), config.continuation_tokens
    sequences = SEQUENCES.get(config.objective.name, config.pool.size)
    return UpdateWork(
        policy_sizes(settings, config),
        shared=(Span(cohorts, prefix), Span(cohorts * sequences, suffix, prefix, logits=suffix)),
        naive=(Span(cohorts * sequences, prefix + suffix, logits=suffix),),
        passes=3 + config.compute.activation_checkpointing + (config.objective.name in WITH_REFERENCE),
        shares=config.compute.shared_prefix == "auto" and sequences > 1,
    )


def prefix_length(config: TrainConfig, settings: PlanSettings) -> int:
    """Tokens of a prefix."""
    return settings.prefix_tokens or config.data.prefix_tokens


def _rewriting(model: ModelSizes, cost: AxisCost, cohorts: int, prefix: int, suffix: int) -> EngineWork:
    prompt = cost.instructions + prefix + suffix
    read = (Span(1, cost.instructions), Span(cohorts, prefix + suffix, cost.instructions, logits=1))
    written = (Span(cohorts, cost.completion, prompt, logits=cost.completion),)
    return EngineWork("rewriting", model, cohorts, cohorts * prompt, read, written)


def _judging(config: TrainConfig, settings: PlanSettings, prefix: int) -> EngineWork:
    candidates, suffix = config.pool.size, config.data.suffix_tokens
    schedule, order = config.judge.schedule or JUDGED_BY_DEFAULT[0], config.judge.order or JUDGED_BY_DEFAULT[1]
    votes = (config.judge.sampling or Sampling()).votes

    def of_cohort(axis: AxisCost) -> Asked:
        if axis.mode == "pairwise":
            return pairwise(axis, prefix, suffix, candidates, comparisons(schedule, candidates, order), votes)
        return pointwise(axis, prefix, suffix, candidates, votes)

    asked = [
        (config.cohorts_per_step * share, of_cohort(settings.axis(axis)))
        for share, composition in config.compositions
        for axis in composition.axes
    ]
    return EngineWork(
        "judging",
        teacher_sizes(settings),
        sum(cohorts * each.calls for cohorts, each in asked),
        sum(cohorts * each.sent for cohorts, each in asked),
        tuple(_times(cohorts, span) for cohorts, each in asked for span in each.read),
        tuple(_times(cohorts, each.written) for cohorts, each in asked),
    )


def _times(cohorts: float, span: Span) -> Span:
    return Span(cohorts * span.count, span.tokens, span.context, span.logits)
