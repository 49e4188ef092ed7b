"""What judges and rewriters answer, whom, and how their engine is."""

from __future__ import annotations

from dashboards.panels import (
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Dashboard,
    mean,
    panel,
    quantile,
    rate,
    share,
)

JUDGING = Dashboard(
    "preceptor-judging",
    "Preceptor: judging",
    rows=(
        (
            "Verdicts",
            (
                panel(
                    "Verdicts",
                    PER_SECOND,
                    (rate("preceptor_verdicts_total", "axis, status"), "{{axis}} {{status}}"),
                    stacked=True,
                ),
                panel(
                    "Abstention",
                    SHARE,
                    (
                        share("preceptor_verdicts_total", "axis", 'status="abstained"', 'status=~"ok|abstained"'),
                        "{{axis}}",
                    ),
                    about="Answers that name no verdict, or whose two orders disagree beyond repair.",
                ),
                panel(
                    "Failed",
                    SHARE,
                    (share("preceptor_verdicts_total", "axis", 'status="failed"', ""), "{{axis}}"),
                    about="The teacher did not answer in time, or refused.",
                ),
                panel(
                    "Discrimination",
                    SHARE,
                    (mean("preceptor_discrimination_ratio", "job"), "{{job}}"),
                    about="Best composite score of a cohort less its worst, mean.",
                ),
                panel(
                    "Pairs whose two orders agree",
                    SHARE,
                    (mean("preceptor_position_consistency_ratio", "axis"), "{{axis}}"),
                ),
                panel(
                    "Answers for the one shown first",
                    SHARE,
                    (mean("preceptor_position_first_ratio", "axis"), "{{axis}}"),
                    about="Above 50 %: the judge prefers what it is shown first.",
                ),
                panel(
                    "How verdicts were read",
                    PER_SECOND,
                    (rate("preceptor_parsed_answers_total", "rung"), "{{rung}}"),
                    stacked=True,
                ),
                panel(
                    "Questions put again", PER_SECOND, (rate("preceptor_unreadable_retries_total", "axis"), "{{axis}}")
                ),
                panel(
                    "Time to judge a cohort",
                    SECONDS,
                    (quantile(0.5, "preceptor_judge_cohort_seconds", "job"), "median {{job}}"),
                    (quantile(0.95, "preceptor_judge_cohort_seconds", "job"), "95 % {{job}}"),
                ),
            ),
        ),
        (
            "Callers",
            (
                panel(
                    "Requests",
                    PER_SECOND,
                    (rate("preceptor_http_requests_total", "job, route, code"), "{{job}} {{route}} {{code}}"),
                ),
                panel(
                    "Time to answer, 95 %",
                    SECONDS,
                    (quantile(0.95, "preceptor_http_request_seconds", "job, route"), "{{job}} {{route}}"),
                ),
                panel(
                    "Refused at the door", PER_SECOND, (rate("preceptor_refusals_total", "job, reason"), "{{reason}}")
                ),
                panel(
                    "Tokens by caller",
                    TOKENS_PER_SECOND,
                    (rate("preceptor_caller_tokens_total", "caller"), "{{caller}}"),
                ),
                panel(
                    "Verdict cache: hits",
                    SHARE,
                    (share("preceptor_verdict_cache_lookups_total", "job", 'result="hit"', ""), "{{job}}"),
                ),
                panel(
                    "Rewrites, and what was wrong with samples",
                    PER_SECOND,
                    (rate("preceptor_rewrites_total", "outcome"), "{{outcome}}"),
                    (rate("preceptor_rewrite_samples_total", "finding", 'finding!="usable"'), "sample: {{finding}}"),
                ),
            ),
        ),
        (
            "Engine, as the services see it",
            (
                panel(
                    "Servers that answer",
                    COUNT,
                    ("sum by (job, replica) (preceptor_engine_ready)", "{{job}} {{replica}}"),
                ),
                panel(
                    "Circuits not closed",
                    COUNT,
                    (
                        'sum by (job, replica) (preceptor_engine_circuit{preceptor_engine_circuit=~"open|half_open"})',
                        "{{job}} {{replica}}",
                    ),
                ),
                panel(
                    "Calls given up, repeated, moved",
                    PER_SECOND,
                    (rate("preceptor_engine_failures_total", "kind"), "given up: {{kind}}"),
                    (rate("preceptor_engine_retries_total", "job"), "repeated {{job}}"),
                    (rate("preceptor_engine_switches_total", "job"), "on another server {{job}}"),
                ),
                panel(
                    "Prompts and calls",
                    PER_SECOND,
                    (rate("preceptor_engine_questions_total", "job"), "prompts {{job}}"),
                    (rate("preceptor_engine_calls_total", "job"), "calls {{job}}"),
                ),
                panel(
                    "Time of a call",
                    SECONDS,
                    (quantile(0.5, "preceptor_engine_call_seconds", "job"), "median {{job}}"),
                    (quantile(0.95, "preceptor_engine_call_seconds", "job"), "95 % {{job}}"),
                ),
                panel(
                    "Tokens",
                    TOKENS_PER_SECOND,
                    (rate("preceptor_engine_tokens_total", "job, kind"), "{{job}} {{kind}}"),
                ),
            ),
        ),
        (
            "vLLM, as it sees itself",
            (
                panel(
                    "Requests",
                    COUNT,
                    ("sum by (job) (vllm:num_requests_running)", "running {{job}}"),
                    ("sum by (job) (vllm:num_requests_waiting)", "waiting {{job}}"),
                ),
                panel(
                    "KV cache in use",
                    SHARE,
                    ("max by (job, instance) (vllm:kv_cache_usage_perc)", "{{job}} {{instance}}"),
                ),
                panel(
                    "Prefix cache: hits",
                    SHARE,
                    (
                        f"{rate('vllm:prefix_cache_hits_total', 'job')}"
                        f" / {rate('vllm:prefix_cache_queries_total', 'job')}",
                        "{{job}}",
                    ),
                    about="Tokens of prompts that were computed before.",
                ),
                panel(
                    "Time of a request",
                    SECONDS,
                    (quantile(0.5, "vllm:e2e_request_latency_seconds", "job"), "median {{job}}"),
                    (quantile(0.95, "vllm:e2e_request_latency_seconds", "job"), "95 % {{job}}"),
                    (quantile(0.95, "vllm:time_to_first_token_seconds", "job"), "first token, 95 % {{job}}"),
                ),
                panel(
                    "Tokens",
                    TOKENS_PER_SECOND,
                    (rate("vllm:prompt_tokens_total", "job"), "prompt {{job}}"),
                    (rate("vllm:generation_tokens_total", "job"), "generated {{job}}"),
                ),
                panel("Requests started over", PER_SECOND, (rate("vllm:num_preemptions_total", "job"), "{{job}}")),
            ),
        ),
    ),
)
