"""Preceptor's client: the contract, the SDK and the command line."""

from preceptor_client.contract import (
    Axis,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Origin,
    RewriteOutcome,
    RewriteRequest,
    RewriteResponse,
    Sampling,
    Status,
    Verdict,
)
from preceptor_client.errors import PreceptorError
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient
from preceptor_client.settings import ClientSettings

__all__ = [
    "AsyncPreceptorClient",
    "Axis",
    "Candidate",
    "ClientSettings",
    "Cohort",
    "JudgeRequest",
    "JudgeResponse",
    "Origin",
    "PreceptorClient",
    "PreceptorError",
    "RewriteOutcome",
    "RewriteRequest",
    "RewriteResponse",
    "Sampling",
    "Status",
    "Verdict",
]
