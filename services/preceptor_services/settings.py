"""What the services can be told: one model for the judge, the rewriter and the worker, so that one file serves all
three.

In: a YAML file, the environment (`PRECEPTOR_SERVICE_ENGINE__URLS=...`), `--engine.urls=...`; see
`preceptor_client.config`. Out: a checked `ServiceSettings`. No I/O here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from preceptor_client.contract import Sampling

ENV_PREFIX = "PRECEPTOR_SERVICE_"

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


def _several(value: object) -> object:
    """`a,b` as two entries, for environment and command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseModel):
    """Base of every section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _base_url(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _all_different(urls: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(urls)) < len(urls):
        raise ValueError("each server may be named once")
    return urls


EngineUrls = Annotated[
    tuple[Annotated[str, Field(pattern=r"^https?://[^/]"), AfterValidator(_base_url)], ...],
    Field(min_length=1),
    BeforeValidator(_several),
    AfterValidator(_all_different),
    NoDecode,
]
"""One address, or several: as a list, or with commas between."""


class EngineSettings(Settings):
    """The teacher: any server that speaks the OpenAI protocol."""

    urls: EngineUrls = ("http://127.0.0.1:8000",)
    """Its servers, with or without a trailing `/v1`; all with the same weights."""
    model: str | None = None
    """The model's name at the server; the first one it serves if left out."""
    api_key: SecretStr | None = None
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    """Requests in flight at once on each server, over everything this process does."""
    timeout_s: Seconds = 60.0
    """Longest wait for one request's answer."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further rounds over the servers after a refused connection, 429 or 5xx."""
    revision: str | None = None
    """What to record as the teacher's revision; else a content hash of local weights, else `unknown`."""
    reasoning: Literal["none", "parsed", "inline"] = "none"
    """Whether the teacher thinks before it answers a chat. `parsed`: the server takes the thought apart and constrains
    what follows it (vLLM's `--reasoning-parser`). `inline`: the thought stands in the answer up to `</think>`, so that
    decoding cannot be constrained."""
    reasoning_tokens: Annotated[int, Field(ge=0)] = 2048
    """Room for the thought beyond a rubric's `max_tokens`, where there is one."""


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
