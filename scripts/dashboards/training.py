"""What a run does: progress, learning, pace, staleness, guards."""

from __future__ import annotations

from dashboards.panels import (
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    UPDATES,
    Dashboard,
    mean,
    panel,
    quantile,
    rate,
    share,
)

_RUN = 'instance=~"$trainer"'

TRAINING = Dashboard(
    "preceptor-training",
    "Preceptor: training",
    variables=(("trainer", "label_values(preceptor_trainer_step, instance)"),),
    rows=(
        (
            "Run",
            (
                panel(
                    "Progress",
                    SHARE,
                    (f"preceptor_trainer_step{{{_RUN}}} / preceptor_trainer_last_step{{{_RUN}}}", "{{instance}}"),
                    kind="stat",
                    width=4,
                ),
                panel("Step", COUNT, (f"preceptor_trainer_step{{{_RUN}}}", "{{instance}}"), kind="stat", width=4),
                panel(
                    "Paused by a guard",
                    COUNT,
                    (f"preceptor_trainer_paused{{{_RUN}}}", "{{instance}}"),
                    about="1: the run waits until <out>/PAUSED is removed.",
                    kind="stat",
                    width=4,
                ),
                panel(
                    "Age of the last checkpoint",
                    SECONDS,
                    (f"time() - preceptor_trainer_checkpoint_timestamp_seconds{{{_RUN}}}", "{{instance}}"),
                    about="What would be done again after a kill; checkpoint.every bounds it.",
                    kind="stat",
                    width=4,
                ),
                panel(
                    "Cohorts ended",
                    PER_SECOND,
                    (rate("preceptor_trainer_cohorts_total", "outcome", _RUN), "{{outcome}}"),
                    about="Only trained ones make updates. Many tied: the judge sees no difference.",
                    stacked=True,
                ),
            ),
        ),
        (
            "Learning",
            (
                panel(
                    "Score by axis",
                    SHARE,
                    (f'avg by (axis) (preceptor_trainer_score_ratio{{{_RUN}, origin="rollout"}})', "{{axis}}"),
                    about="Mean of the rollouts in the last update's cohorts.",
                ),
                panel(
                    "Score by origin",
                    SHARE,
                    (f'avg by (origin) (preceptor_trainer_score_ratio{{{_RUN}, origin!="all"}})', "{{origin}}"),
                    about="Rollouts that rise above originals and rewrites: the policy writes what the judge prefers.",
                ),
                panel(
                    "Share of updates won, by origin",
                    SHARE,
                    (
                        f"{rate('preceptor_trainer_chosen_total', 'origin', _RUN)} / ignoring (origin) group_left () "
                        f"sum (rate(preceptor_trainer_chosen_total{{{_RUN}}}[$__rate_interval]))",
                        "{{origin}}",
                    ),
                    stacked=True,
                ),
                panel("Loss", COUNT, (f"preceptor_trainer_loss{{{_RUN}}}", "{{instance}}")),
                panel("Gradient norm", COUNT, (f"preceptor_trainer_gradient_norm{{{_RUN}}}", "{{instance}}")),
                panel("Learning rate", COUNT, (f"preceptor_trainer_learning_rate{{{_RUN}}}", "{{instance}}")),
            ),
        ),
        (
            "Pace",
            (
                panel(
                    "Time by stage",
                    SHARE,
                    (rate("preceptor_trainer_stage_seconds_sum", "stage", _RUN), "{{stage}}"),
                    about="Seconds a second. Stages overlap: a good run samples and updates all the time.",
                ),
                panel(
                    "Idle, and stalled by part",
                    SHARE,
                    (rate("preceptor_trainer_idle_seconds_total", "instance", _RUN), "idle {{instance}}"),
                    (rate("preceptor_trainer_stalled_seconds_total", "part", _RUN), "waits for {{part}}"),
                ),
                panel(
                    "Tokens", TOKENS_PER_SECOND, (rate("preceptor_trainer_tokens_total", "stage", _RUN), "{{stage}}")
                ),
                panel(
                    "Updates", PER_SECOND, (rate("preceptor_trainer_updates_total", "instance", _RUN), "{{instance}}")
                ),
                panel(
                    "Weights to the policy engine",
                    SECONDS,
                    (quantile(0.5, "preceptor_trainer_stage_seconds", "stage", f'{_RUN}, stage="syncing"'), "median"),
                    (quantile(0.95, "preceptor_trainer_stage_seconds", "stage", f'{_RUN}, stage="syncing"'), "95 %"),
                ),
                panel(
                    "Buffer",
                    COUNT,
                    (f"sum by (state) (preceptor_trainer_buffer_cohorts{{{_RUN}}})", "{{state}}"),
                    (f"sum (preceptor_trainer_buffer_slots{{{_RUN}}})", "slots"),
                    about="All outstanding and none ready: judging is the bottleneck. All ready: the update is.",
                ),
            ),
        ),
        (
            "Staleness and judging",
            (
                panel(
                    "Staleness",
                    UPDATES,
                    (mean("preceptor_trainer_staleness_updates", "instance", _RUN), "mean {{instance}}"),
                    (f"max by (instance) (preceptor_trainer_staleness_limit_updates{{{_RUN}}})", "bound {{instance}}"),
                ),
                panel(
                    "Discrimination",
                    SHARE,
                    (mean("preceptor_trainer_discrimination_ratio", "instance", _RUN), "{{instance}}"),
                    about="Best composite score of a cohort less its worst, mean. At 0 there is nothing to learn.",
                ),
                panel(
                    "Verdicts without a score",
                    SHARE,
                    (
                        share(
                            "preceptor_trainer_verdicts_total",
                            "instance",
                            f'{_RUN}, status="abstained"',
                            f'{_RUN}, status=~"ok|abstained"',
                        ),
                        "abstained {{instance}}",
                    ),
                    (
                        share("preceptor_trainer_verdicts_total", "instance", f'{_RUN}, status="failed"', _RUN),
                        "failed {{instance}}",
                    ),
                ),
            ),
        ),
        (
            "Guards and troubles",
            (
                panel(
                    "Guard readings",
                    COUNT,
                    (f"preceptor_trainer_guard_reading{{{_RUN}}}", "{{guard}}"),
                    about="NLL and entropy in nats a token, length in tokens, the others shares.",
                ),
                panel(
                    "Readings beyond a limit",
                    COUNT,
                    (f"preceptor_trainer_guard_readings_beyond{{{_RUN}}}", "{{guard}}"),
                    about="In a row: after warn_after of them the guard warns, after act_after it acts.",
                ),
                panel(
                    "Calls to Redis that failed, cohorts again",
                    PER_SECOND,
                    (rate("preceptor_trainer_redis_errors_total", "kind", _RUN), "{{kind}}"),
                    (rate("preceptor_trainer_queue_events_total", "event", _RUN), "{{event}}"),
                ),
                panel(
                    "Rewrites",
                    PER_SECOND,
                    (rate("preceptor_trainer_rewrites_total", "outcome", _RUN), "{{outcome}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)
