"""Where the services are and how patiently to call them.

In: the environment (`PRECEPTOR_JUDGE_URL`, `PRECEPTOR_API_KEY`, ...) or arguments, which win. Out: `ClientSettings`.
"""

from __future__ import annotations

from typing import Annotated

import httpx
from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _parsed(url: str) -> str:
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"is no URL: {error}") from None
    return url


Address = Annotated[str, AfterValidator(_parsed)]


class ClientSettings(BaseSettings):
    """Settings of both clients and of the command line."""

    model_config = SettingsConfigDict(env_prefix="PRECEPTOR_", frozen=True, extra="forbid")

    judge_url: Address = "http://127.0.0.1:8101"
    rewrite_url: Address = "http://127.0.0.1:8102"
    redis_url: str = "redis://127.0.0.1:6379/0"
    api_key: SecretStr | None = None
    connect_timeout_s: float = Field(default=5.0, gt=0)
    read_timeout_s: float = Field(default=130.0, gt=0)
    """Longest wait for an answer to a request that names no deadline of its own: longer than the two minutes after
    which the services answer for what they have."""
    deadline_margin_s: float = Field(default=10.0, ge=0)
    """Added to a request's own deadline: the service answers at the deadline, the answer still has to travel."""
    max_connections: int = Field(default=64, ge=1)
    """Requests in flight at once; further ones wait for a free connection."""
    retries: int = Field(default=4, ge=0)
    backoff_s: float = Field(default=0.25, ge=0)
    """The first retry waits half to all of this, each later one twice as long."""
    backoff_max_s: float = Field(default=8.0, ge=0)
    retry_after_max_s: float = Field(default=60.0, ge=0)
    """A service that asks for a longer pause is not waited for: its refusal is raised at once."""
