"""What the services can be told: one model for the judge, the rewriter and the worker, so that one file serves all
three.

In: a YAML file, the environment (`PRECEPTOR_SERVICE_ENGINE__URL=...`), `--engine.url=...`; see
`preceptor_client.config`. Out: a checked `ServiceSettings`. No I/O here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from preceptor_client.contract import Sampling

ENV_PREFIX = "PRECEPTOR_SERVICE_"

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseModel):
    """Base of every section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSettings(Settings):
    """The teacher: any server that speaks the OpenAI protocol."""

    url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8000"
    """With or without a trailing `/v1`."""
    model: str | None = None
    """The model's name at the server; the first one it serves if left out."""
    api_key: SecretStr | None = None
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    """Requests in flight at once, over everything this process does."""
    timeout_s: Seconds = 60.0
    """Longest wait for one request's answer."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after a refused connection, 429 or 5xx."""
    revision: str | None = None
    """What to record as the teacher's revision; else a content hash of local weights, else `unknown`."""


class JudgingSettings(Settings):
    """How cohorts are judged."""

    deadline_s: Seconds = 120.0
    """Longest time for one cohort; a request may ask for less. What is open then is returned as `failed`."""
    sampling: Sampling = Sampling()
    """For requests that bring none."""
    max_prompts_per_call: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most prompts in one completions request."""


class RewritingSettings(Settings):
    """How suffixes are rewritten."""

    deadline_s: Seconds = 120.0
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: int | None = None
    max_prompts_per_call: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most rewrites that share one completions request."""


class QueueSettings(Settings):
    """Where the worker finds its cohorts."""

    url: Annotated[str, Field(pattern=r"^(redis|rediss|unix)://")] = "redis://127.0.0.1:6379/0"
    bound: Annotated[int, Field(ge=1)] = 1024
    namespace: Annotated[str, Field(min_length=1, max_length=64)] = "preceptor"
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Cohorts judged at once by this worker."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = None
    """Serves `/metrics`, `/healthz` and `/readyz` of the worker if set."""


class WebSettings(Settings):
    """Limits of the HTTP side."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    """Room for the largest cohort that the contract allows."""
    idempotency_entries: Annotated[int, Field(ge=0)] = 1024
    """Finished answers kept for `Idempotency-Key`; the oldest goes first."""


class ServiceSettings(Settings):
    """Everything, with defaults on loopback."""

    engine: EngineSettings = EngineSettings()
    rubrics: str = "instruct"
    """The packaged set `instruct` or `nano`, or the path of a folder."""
    judging: JudgingSettings = JudgingSettings()
    rewriting: RewritingSettings = RewritingSettings()
    queue: QueueSettings = QueueSettings()
    web: WebSettings = WebSettings()
