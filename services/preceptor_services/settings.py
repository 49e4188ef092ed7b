"""What the services can be told: one model for the judge, the rewriter and the worker, so that one file serves all
three.

In: a YAML file, the environment (`PRECEPTOR_SERVICE_ENGINE__URLS=...`), `--engine.urls=...`; see
`preceptor_client.config`. Out: a checked `ServiceSettings`. No I/O here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import NoDecode
from yarl import URL

from preceptor_client.contract import MAX_SAMPLES, AxisName, Identifier, Order, Sampling, ScheduleName
from preceptor_client.tracing import TracingSettings

ENV_PREFIX = "PRECEPTOR_SERVICE_"

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
RedisUrl = Annotated[str, Field(pattern=r"^(rediss?(\+sentinel)?|unix)://")]
"""`redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://host:26379,host:26379/<master>/<db>`, `rediss+...`."""


PageUrl = Annotated[str, Field(pattern=r"^(https?://[^/\s]+(/\S*)?|/)$")]


def _several(value: object) -> object:
    """`a,b` as two entries, for environment and command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Rubrics = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_several), NoDecode]
"""Packaged sets (`instruct`, `nano`), folders and files; of two rubrics for one axis the later is the default."""


class Settings(BaseModel):
    """Base of every section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _base_url(url: str) -> str:
    URL(url)  # raises ValueError if it is none
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


Reasoning = Literal["none", "parsed", "inline", "harmony"]
"""How a teacher that thinks before it answers a chat shows its thought: see `EngineSettings.reasoning`."""


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
    heartbeat_s: Seconds = 3.0
    """How often a server is asked whether it is there. Shorter than it takes to start, so that a restart, perhaps with
    other weights, cannot go unnoticed."""
    heartbeat_timeout_s: Seconds = 5.0
    """Longest wait for the answer to that. A server that misses three in a row is lost, and so are its calls."""
    revision: str | None = None
    """What to record as the teacher's revision; else a content hash of local weights, else `unknown`."""
    reasoning: Reasoning = "none"
    """Whether the teacher thinks before it answers a chat. `parsed`: the server takes the thought apart and constrains
    what follows it (vLLM's `--reasoning-parser`). `inline`: the thought stands in the answer up to `</think>`, so that
    decoding cannot be constrained. `harmony`: gpt-oss, whose thought the server takes apart and cannot end or leave
    unbound, so that decoding is not constrained either."""
    reasoning_tokens: Annotated[int, Field(ge=0)] = 2048
    """Room for the thought beyond a rubric's `max_tokens`, where there is one."""

    @model_validator(mode="after")
    def _credentials_are_given_once(self) -> Self:
        if self.api_key is not None and any(URL(url).user is not None for url in self.urls):
            raise ValueError("api_key cannot go with a user in urls: leave one of them out")
        return self


class JudgingSettings(Settings):
    """How cohorts are judged."""

    deadline_s: Seconds = 120.0
    """Longest time for one cohort; a request may ask for less. What is open then is returned as `failed`."""
    sampling: Sampling = Sampling()
    """For requests that bring none."""
    schedule: ScheduleName = ScheduleName.ALL_PAIRS
    """For requests that name none."""
    order: Order = Order.BOTH
    """For requests that name none."""
    unreadable_retries: Annotated[int, Field(ge=0, le=5)] = 1
    """How often a question is put again whose answers named no verdict, at a temperature that can bring another."""
    request_rubrics: bool = True
    """Whether a request may bring a rubric of its own."""
    max_prompts_per_call: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most prompts in one completions request."""


FIRST = "first"
"""The name in a panel of the judge that the service's own engine and rubrics make."""


class MemberSettings(Settings):
    """A further judge of a panel."""

    engine: EngineSettings
    rubrics: Rubrics = ("instruct",)


class PanelSettings(Settings):
    """Several judges on every cohort. `engine` and `rubrics` of the service are the first, named `first`."""

    members: dict[Identifier, MemberSettings] = Field(default_factory=dict)
    """The others, by name; without any there is no panel."""
    combine: Literal["mean", "majority", "minimum"] = "mean"
    """How their scores become one: the mean; the score that most gave (the mean of those, if there are several); the
    lowest."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """Judges that must have a score; all of them if left out."""

    @model_validator(mode="after")
    def _quorum_can_be_had(self) -> Self:
        if self.quorum is not None and self.quorum > len(self.members) + 1:
            raise ValueError(f"quorum {self.quorum} is more than the {len(self.members) + 1} judges there are")
        if FIRST in self.members:
            raise ValueError(f"members: {FIRST!r} is the name of the service's own judge: choose another")
        return self


class RewritingSettings(Settings):
    """How suffixes are rewritten, and what a rewrite must hold."""

    deadline_s: Seconds = 120.0
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Where one rewrite is drawn."""
    best_of_temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.8
    """Where several are."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    """Rewrites drawn for requests that do not say; the judge chooses among those that are usable."""
    axes: Annotated[tuple[AxisName, ...], Field(min_length=1), BeforeValidator(_several)] = ("quality", "safety")
    """What the judge compares them by."""
    min_length_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    max_length_ratio: Annotated[float, Field(ge=1.0)] = 2.0
    """Bounds on a rewrite's words over the suffix's; a difference of eight words or less is always allowed."""
    min_kept: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Least share of the words of a suffix of 32 or more that its rewrite must keep, in order. Unrelated texts of one
    language keep 0.05 to 0.2 of each other."""
    max_copied: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Largest share of a rewrite that may repeat the prefix, where the suffix repeats no more of it."""
    max_repetition: Annotated[float, Field(ge=0.0, le=1.0)] = 0.6
    """Largest share of a rewrite that may repeat itself, where the suffix does no more; a text said twice has 0.5."""
    max_prompts_per_call: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most rewrites that share one completions request."""


class QueueSettings(Settings):
    """Where the worker finds its cohorts, and the page what trainers show of their runs."""

    url: RedisUrl = "redis://127.0.0.1:6379/0"
    namespace: Annotated[str, Field(min_length=1, max_length=64)] = "preceptor"
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Cohorts judged at once by this worker."""
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 15.0
    """How long after a worker died others take over what it was judging."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 5
    """How often a cohort is begun before it goes to the dead letters."""
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """How long a worker that is told to stop goes on with what it has in hand, before it hands it back."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = None
    """Serves `/metrics`, `/healthz` and `/readyz` of the worker if set."""


class WebSettings(Settings):
    """Limits of the HTTP side."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    """Room for the largest cohort that the contract allows."""
    idempotency_entries: Annotated[int, Field(ge=0)] = 1024
    """Finished answers kept for `Idempotency-Key`; the oldest goes first."""
    max_waiting: Annotated[int, Field(ge=1)] = 1024
    """Requests in work at once, over all callers; a further one gets 503 and when to come back. Keys of priority bulk
    may fill three quarters of it, of priority training half."""


class StoreSettings(Settings):
    """A Redis for what outlives the process or is shared between several: verdict cache, batches, rate limits."""

    url: RedisUrl | None = None
    """Without one there is no verdict cache and there are no batches; rate limits are each process's own."""
    namespace: Annotated[str, Field(min_length=1, max_length=64)] = "preceptor"


class CacheSettings(Settings):
    """The verdict cache; needs `store.url`."""

    enabled: bool = True
    ttl_s: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    """How long an answer is kept."""


class BatchSettings(Settings):
    """`POST /v1/batches`; needs `store.url`."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Cohorts of batches judged at once by this process."""
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 15.0
    """How long after a process died others take over what it was judging."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 5
    """How often an item is begun before it gets a problem for its result."""
    ttl_s: Annotated[int, Field(ge=60)] = 3 * 24 * 3600
    """How long a batch is kept after it was submitted."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """A batch's own limit. While a body is parsed everybody waits: about a second for this much."""
    max_waiting: Annotated[int, Field(ge=1)] = 100_000
    """Items without a result, over all batches, above which a new batch is told to come back later."""


class AuthSettings(Settings):
    """Who may call."""

    keys_file: Path | None = None
    """API keys, hashed, with their limits; see `preceptor keys`. Without it anyone may call, on loopback only."""
    metrics: bool = False
    """Whether figures need a key as well: `/metrics`, the runs and their rows. Texts always do."""


class DashboardSettings(Settings):
    """The page at `/`, and what it shows of training runs: those whose trainers use `queue.url`."""

    enabled: bool = True
    judge_url: PageUrl | None = None
    rewrite_url: PageUrl | None = None
    """Where a browser finds the other service, so that the page can lead there; `/` if both have one address."""


class LogSettings(Settings):
    """What is logged, to stderr."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    texts: bool = False
    """Whether requests and answers are logged with their texts."""


class ServiceSettings(Settings):
    """Everything, with defaults on loopback."""

    engine: EngineSettings = EngineSettings()
    rubrics: Rubrics = ("instruct",)
    judging: JudgingSettings = JudgingSettings()
    panel: PanelSettings = PanelSettings()
    rewriting: RewritingSettings = RewritingSettings()
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    cache: CacheSettings = CacheSettings()
    batches: BatchSettings = BatchSettings()
    web: WebSettings = WebSettings()
    auth: AuthSettings = AuthSettings()
    dashboard: DashboardSettings = DashboardSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
