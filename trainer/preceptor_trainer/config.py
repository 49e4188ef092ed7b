"""Everything a training run can be told, as one typed tree. Importable without torch.

In: YAML, environment (`PRECEPTOR_TRAIN_A__B=c`) and `--a.b=c`, through `preceptor_client.config.load_config`. Out: a
frozen `TrainConfig` whose parts fit together: what the objective and the pool need is there, or the error says which
key to set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preceptor_client.contract import (
    MAX_CANDIDATES,
    AxisName,
    Composition,
    Identifier,
    Order,
    Origin,
    RubricName,
    Sampling,
    ScheduleName,
)
from preceptor_client.contract.composition import Gates, Weights, check_guards
from preceptor_client.masking import MaskedUrl, Secret
from preceptor_client.tracing import TracingSettings
from preceptor_trainer.controls import ControlConfig, check_controls, control_of
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.guards.config import OF_ROLLOUTS, OF_VERDICTS, PLACE, GuardsConfig, HeldOutGuard
from preceptor_trainer.rollouts.config import RolloutsConfig
from preceptor_trainer.section import NonNegative, Positive, Seconds, Section, Share, Weight
from preceptor_trainer.trackers.config import LoggingConfig

ENV_PREFIX = "PRECEPTOR_TRAIN_"


class ModelConfig(Section):
    """The policy to start from. Its weights are held in float32, whatever the files have: AdamW moves a weight by about
    `optimizer.lr`, which half precision would round away."""

    path: str
    """A Hugging Face directory or name, with its tokenizer."""


class ControllerConfig(Section):
    """Adds rollouts to the pool as they start to win: one to begin with, then one more whenever rollouts were chosen in
    `share` of the last `window` cohorts."""

    share: Share = 0.5
    window: Positive = 64


class PoolConfig(Section):
    """The candidates of a cohort."""

    original: bool = True
    rewrite: bool = False
    rollouts: NonNegative = 0
    """K, rollouts per prefix."""
    controller: ControllerConfig | None = None
    """Whether there are fewer than K at first; None: the judge alone decides how often a rollout is chosen."""

    @property
    def size(self) -> int:
        """Candidates per cohort when nothing fails."""
        return self.original + self.rewrite + self.rollouts

    @property
    def origins(self) -> set[Origin]:
        """Whose continuations are in it."""
        held = {Origin.ORIGINAL: self.original, Origin.REWRITE: self.rewrite, Origin.ROLLOUT: self.rollouts > 0}
        return {origin for origin, is_there in held.items() if is_there}


class ThoughtsConfig(Section):
    """The policy thinks before it goes on: a thought between delimiters, and then the suffix, which alone is judged."""

    open: str = "<thought>"
    close: str = "</thought>"
    """Each one token of the policy's tokenizer."""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """Longest thought, its delimiters among them; one that is longer, or does not close, is malformed."""

    @model_validator(mode="after")
    def _delimiters_differ(self) -> Self:
        if self.open == self.close:
            raise ValueError(f"open and close are both {self.open}: set two different ones")
        return self


class JudgeConfig(Section):
    """The queue to the judges, and what they are asked."""

    redis_url: MaskedUrl = "redis://127.0.0.1:6379/0"
    bound: Positive = 1024
    namespace: str = "preceptor"
    axes: Weights = Field(default_factory=lambda: {"quality": 1.0, "safety": 1.0, "factuality": 1.0})
    """Axis -> its weight in the composite score."""
    gates: Gates = ()
    """What a candidate must not fail, whatever its scores; see `preceptor_client.contract.composition`."""
    rubrics: dict[AxisName, RubricName] = Field(default_factory=dict)
    """For these axes, another of the judge's rubrics than its default."""
    schedule: ScheduleName | None = None
    order: Order | None = None
    """Which pairs are compared and in which order they are shown; the judge's own settings if left out."""
    sampling: Sampling | None = None
    deadline_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    patience_s: Seconds = 600.0
    """How long a Redis that is away, full or read-only is waited for before the run ends."""
    give_up_after: Positive = 512
    """Cohorts dropped in a row (tied, or without usable verdicts) after which the run stops."""

    @model_validator(mode="after")
    def _gates_guard_what_counts(self) -> Self:
        check_guards(self.gates, self.axes)
        return self

    @property
    def composition(self) -> Composition:
        """How the verdicts become one score."""
        return Composition(weights=self.axes, gates=self.gates)


class RewriteConfig(Section):
    """The rewrite service, and how far it works ahead of the rollouts."""

    url: MaskedUrl = "http://127.0.0.1:8102"
    api_key: Secret | None = None
    ahead: Positive = 64
    """Windows rewritten, or being rewritten, in front of the rollouts."""
    concurrency: Positive = 32
    patience_s: Seconds = 120.0
    """How long a rewrite service that is away is waited for before its windows go on without a rewrite."""

    @property
    def key(self) -> str | None:
        """`api_key` as it is sent."""
        return self.api_key.get_secret_value() if self.api_key else None


_ALONE = {
    Origin.ORIGINAL: "{original: true}",
    Origin.REWRITE: "{original: false, rewrite: true}",
    Origin.ROLLOUT: "{original: false, rollouts: 1}",
}


class ObjectiveConfig(Section):
    """What the verdicts are used for. Each objective reads its own keys."""

    name: Literal["dpo", "rf_nll", "grpo", "nll"] = "dpo"
    target: Origin = Origin.ORIGINAL
    """nll: what it trains on, without a judge: the originals, the teacher's rewrites, or one rollout a prefix."""
    beta: Weight = 0.1
    """dpo: strength of the pull towards the reference model."""
    refresh_reference: Positive | None = None
    """dpo: the reference becomes the policy as it is, each time after so many updates; None keeps that of the start."""
    prefer: tuple[Origin, Origin] | None = None
    """dpo: pairs by origin, the first over the second, without a judge ([rewrite, rollout]); None asks the judges."""
    nll_weight: Annotated[float, Field(ge=0)] = 0.0
    """dpo: weight of an NLL term on the chosen candidate."""
    pair_weight: Literal["none", "ratio"] = "none"
    """dpo: whether a pair counts by how likely the policy still is to write it, for rollouts of older weights."""
    correction: Literal["none", "clip", "truncate", "decoupled"] = "decoupled"
    """grpo: what is done about rollouts of older weights: nothing, PPO's clipping, truncated importance sampling, or
    both, each on its share of the way from the old weights; see docs/staleness.md."""
    ratio_cap: Annotated[float, Field(ge=1)] = 2.0
    """grpo (truncate, decoupled) and dpo (pair_weight): the largest weight."""
    ratio_low: Annotated[float, Field(gt=0, lt=1)] = 0.125
    ratio_high: Annotated[float, Field(gt=1)] = 8.0
    """grpo (truncate, decoupled): a token whose ratio to its sampling policy lies outside does not train."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Weight = 0.2
    """grpo (clip, decoupled): the ratio to the sampling policy, or of one update, is clipped to [1 - clip_low, 1 +
    clip_high]."""
    normalize_std: bool = True
    """grpo: divide advantages by their standard deviation; False is Dr.GRPO."""

    @model_validator(mode="after")
    def _pairs_are_of_two(self) -> Self:
        if self.prefer and (self.name != "dpo" or self.prefer[0] is self.prefer[1]):
            raise ValueError("prefer is for dpo, and names two origins")
        return self


Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    lr: Weight = 3e-4
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: NonNegative = 0
    min_lr_ratio: Share = 0.1
    """cosine: the last learning rate, as a share of `lr`."""
    clip: Weight | None = 1.0
    """Largest norm of the gradient; None never clips."""


def _off(value: object) -> object:
    """An `off` that YAML has read as False."""
    return "off" if value is False else value


class ComputeConfig(Section):
    """How an update is computed: what it gives is the same, up to rounding."""

    micro_cohorts: Positive | None = None
    """Cohorts per forward pass of each rank; gradients of the passes add up to the same update. None takes the whole
    step at once."""
    shared_prefix: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = "auto"
    """Compute a cohort's prefix once for all its candidates, where the model is found to give the same numbers so."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products of matrices, in the update; weights, moments and sums stay in float32."""
    activation_checkpointing: bool = False
    """Keep no activations inside a layer; compute them again on the way back."""
    compile: bool = False
    """Let torch.compile fuse the layers: minutes at the start, faster steps on a GPU."""


class StalenessConfig(Section):
    """How far the weights may move between a rollout and the update it is used in."""

    limit: NonNegative = 1
    """Updates; 0 is synchronous."""
    policy: Literal["wait", "drop"] = "wait"
    """A cohort whose verdicts are so late that it would pass the limit: `wait` for it before the weights move on, or
    `drop` it, count it and make up for it with a new one."""


class CheckpointConfig(Section):
    """Hugging Face directories under `<out>/checkpoints`; `<out>/final` is always written."""

    every: Positive | None = None
    """Steps; None writes the final one, and one when the run is stopped."""
    keep: Positive = 2
    """How many of the newest stay."""


class MetricsConfig(Section):
    """Where Prometheus can scrape the run: `/metrics`, with figures and no texts."""

    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """None: nowhere."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 for scrapers on other machines."""


class BoardConfig(Section):
    """What the services' page shows of the run, through the Redis of `judge`; see docs/dashboard.md."""

    enabled: bool = True
    rows: Positive = 4000
    """Newest steps whose figures are kept there."""
    cohorts: NonNegative = 256
    """Newest cohorts that are kept there, with their texts and verdicts; 0 shows no text."""
    every: Positive = 8
    """One in so many cohorts, by lot, is kept; of these the judges' reasons and comparisons are asked for as well."""


class TrainConfig(Section):
    """A training run."""

    run: Identifier = "train"
    out: Path
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    """Synchronous, on the CPU, cohorts in rounds: the same seed, verdicts and `threads` give the same weights to the
    last bit, also through a stop and a resume."""
    threads: Positive | None = None
    """CPU threads of torch; None leaves its default."""
    steps: Positive
    cohorts_per_step: Positive = 16
    model: ModelConfig
    data: DataConfig
    pool: PoolConfig = PoolConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    thoughts: ThoughtsConfig | None = None
    """Whether rollouts and rewrites are thoughts with a suffix each; see docs/thoughts.md."""
    judge: JudgeConfig = JudgeConfig()
    controls: tuple[ControlConfig, ...] | None = None
    """Tokens in front of the prefix that switch what is rewarded; see docs/control-tokens.md."""
    rewrite: RewriteConfig = RewriteConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    staleness: StalenessConfig = StalenessConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guards: GuardsConfig = GuardsConfig()
    logging: LoggingConfig = LoggingConfig()
    tracing: TracingSettings = TracingSettings()
    metrics: MetricsConfig = MetricsConfig()
    board: BoardConfig = BoardConfig()

    @property
    def judged(self) -> bool:
        """Whether the run needs verdicts, and so Redis and judges."""
        if self.controls:
            return any(control.axes for control in self.controls)
        return self.objective.name != "nll" and not self.objective.prefer

    def control(self, window: str) -> ControlConfig | None:
        """That of the window with the id `window`; None without controls."""
        return control_of(self.controls, self.seed, window) if self.controls else None

    def composition(self, window: str) -> Composition:
        """How the verdicts on that window's candidates become one score."""
        control = self.control(window)
        return (control and control.composition) or self.judge.composition

    @property
    def compositions(self) -> list[tuple[float, Composition]]:
        """Of all windows, which share is judged by which composition."""
        if self.controls is None:
            return [(1.0, self.judge.composition)]
        return [(each.share, each.composition) for each in self.controls if each.composition]

    @property
    def axes(self) -> set[str]:
        """All that a judge is asked about."""
        return {axis for _, composition in self.compositions for axis in composition.axes}

    def prefer(self, window: str) -> tuple[Origin, Origin] | None:
        """What of that window is chosen over what without a judge; None asks the judges."""
        control = self.control(window)
        return control.prefer if control else self.objective.prefer

    @property
    def continuation_tokens(self) -> int:
        """Of the longest candidate: a suffix, with a thought in front if there are thoughts."""
        return self.data.suffix_tokens + (self.thoughts.max_tokens if self.thoughts else 0)

    @property
    def sequence_tokens(self) -> int:
        """Of the longest sequence that the policy reads: prefix and candidate, behind a control token if there are
        controls."""
        return self.data.prefix_tokens + self.continuation_tokens + bool(self.controls)

    @property
    def sequence_keys(self) -> str:
        """What `sequence_tokens` is the sum of, for messages."""
        thoughts = " + thoughts.max_tokens" if self.thoughts else ""
        control = " + 1 control token" if self.controls else ""
        return f"data.prefix_tokens + data.suffix_tokens{thoughts}{control}"

    def held_out(self, guard: HeldOutGuard) -> DataConfig:
        """The documents of `guard`."""
        given = guard.model_dump(include=set(PLACE), exclude_none=True)
        return self.data.in_order(**given)

    @model_validator(mode="after")
    def _controls_fit(self) -> Self:
        if self.controls is None:
            return self
        check_controls(self.controls)
        objective, preferring = self.objective, [control for control in self.controls if control.prefer]
        if objective.name == "nll" or objective.prefer:
            raise ValueError("controls say what is rewarded: objective has to be dpo, rf_nll or grpo, without prefer")
        if preferring and objective.name == "grpo":
            raise ValueError(f"grpo needs scores: give control {preferring[0].token} axes in place of prefer")
        if preferring and self.pool.controller:
            raise ValueError("pool.controller counts what judges choose: leave it out, or prefer")
        for control in preferring:
            if control.prefer and not self.pool.origins.issuperset(control.prefer):
                raise ValueError(
                    f"control {control.token} compares {' with '.join(control.prefer)}: the pool needs both of them"
                )
        return self

    @model_validator(mode="after")
    def _rubrics_are_for_what_is_judged(self) -> Self:
        if unknown := sorted(self.judge.rubrics.keys() - self.axes):
            raise ValueError(
                f"judge.rubrics names {', '.join(unknown)}, which is not judged: set its weight, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _guards_have_readings(self) -> Self:
        of_cohorts = OF_ROLLOUTS + OF_VERDICTS
        blind = dict.fromkeys(() if self.judged else of_cohorts, "what judges have answered, and none is asked")
        blind |= dict.fromkeys(() if self.pool.rollouts else OF_ROLLOUTS, "rollouts, and pool.rollouts is 0")
        for name in self.guards.on:
            if name in blind:
                raise ValueError(f"guards.{name} watches {blind[name]}: leave it out")
        guard = self.guards.held_out_nll
        if guard and (not (read := self.held_out(guard)).path or read.place in self.data.places):
            raise ValueError(f"guards.held_out_nll would read what is trained on ({self.data.name}): set its path")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.objective.name == "nll":
            if self.pool.origins != {self.objective.target} or self.pool.size > 1:
                raise ValueError(
                    f"objective nll trains on one {self.objective.target} a prefix (objective.target): "
                    f"set pool to that alone, {_ALONE[self.objective.target]}"
                )
        elif self.objective.prefer and not self.pool.origins.issuperset(self.objective.prefer):
            raise ValueError(
                f"objective.prefer compares {' with '.join(self.objective.prefer)}: the pool needs both of them"
            )
        elif self.pool.size < 2:
            raise ValueError(
                f"objective {self.objective.name} chooses between candidates and the pool has {self.pool.size}: "
                "set pool.rollouts, pool.rewrite or pool.original so that there are two or more"
            )
        elif self.pool.size > MAX_CANDIDATES:
            raise ValueError(f"a cohort holds at most {MAX_CANDIDATES} candidates and the pool has {self.pool.size}")
        if self.thoughts and self.pool.original:
            raise ValueError(
                "thoughts: the original has none to train on (a judge sees it anyway): set pool.original=false"
            )
        if self.pool.controller and not (self.judged and self.pool.rollouts):
            raise ValueError("pool.controller adds rollouts as the judges choose them: set pool.rollouts, ask judges")
        if self.pool.controller and self.pool.size == self.pool.rollouts:
            raise ValueError("pool.controller begins with one rollout alone: set pool.original or pool.rewrite as well")
        if self.deterministic and (self.staleness.limit or self.device != "cpu" or self.rollouts.engine != "torch"):
            raise ValueError("deterministic needs staleness.limit=0, device=cpu and rollouts.engine=torch")
        if self.optimizer.warmup_steps > self.steps:
            raise ValueError(f"optimizer.warmup_steps is above steps ({self.steps})")
        return self
