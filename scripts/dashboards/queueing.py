"""Where cohorts wait: the queue, batches, Redis."""

from __future__ import annotations

from dashboards.panels import BYTES, COUNT, PER_SECOND, SECONDS, Dashboard, panel, rate

QUEUE = Dashboard(
    "preceptor-queue",
    "Preceptor: queue",
    rows=(
        (
            "Queue",
            (
                panel(
                    "Alerts", COUNT, ('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"), kind="stat", width=6
                ),
                panel("Workers", COUNT, ('sum(up{job="worker"})', "up"), kind="stat", width=6),
                panel(
                    "Dead letters",
                    COUNT,
                    ('max(preceptor_queue_depth{state="dead"})', "dead"),
                    about="`preceptor queue dead` lists them with their reasons.",
                    kind="stat",
                    width=6,
                ),
                panel("Oldest cohort", SECONDS, ("max(preceptor_queue_oldest_seconds)", "age"), kind="stat", width=6),
                panel(
                    "Cohorts in the queue",
                    COUNT,
                    ("max by (state) (preceptor_queue_depth)", "{{state}}"),
                    about="Every worker sees the whole queue, so this is the highest that any saw.",
                ),
                panel("Age of the oldest", SECONDS, ("max(preceptor_queue_oldest_seconds)", "age")),
                panel(
                    "Cohorts done with",
                    PER_SECOND,
                    (rate("preceptor_worker_cohorts_total", "result"), "{{result}}"),
                    stacked=True,
                ),
                panel("In hand", COUNT, ("sum by (instance) (preceptor_worker_in_hand)", "{{instance}}")),
                panel(
                    "Calls to Redis that failed",
                    PER_SECOND,
                    (rate("preceptor_queue_errors_total", "job, kind"), "{{job}} {{kind}}"),
                    (rate("preceptor_verdict_cache_errors_total", "job"), "verdict cache {{job}}"),
                    (rate("preceptor_limit_errors_total", "job"), "rate limits {{job}}"),
                ),
            ),
        ),
        (
            "Batches",
            (
                panel("Waiting", COUNT, ("max(preceptor_batch_items_waiting)", "without a result")),
                panel("In hand", COUNT, ("sum by (instance) (preceptor_batch_items_in_hand)", "{{instance}}")),
                panel(
                    "Done with", PER_SECOND, (rate("preceptor_batch_items_total", "result"), "{{result}}"), stacked=True
                ),
            ),
        ),
        (
            "Redis, where it has an exporter",
            (
                panel(
                    "Memory",
                    BYTES,
                    ("redis_memory_used_bytes", "used {{instance}}"),
                    ("redis_memory_max_bytes > 0", "bound {{instance}}"),
                ),
                panel("Commands", PER_SECOND, (rate("redis_commands_processed_total", "instance"), "{{instance}}")),
                panel("Clients", COUNT, ("redis_connected_clients", "{{instance}}")),
            ),
        ),
    ),
)
