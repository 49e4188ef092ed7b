"""What the fake answers with: scores, composites, problems. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import ValidationError

from preceptor_client.config import in_words
from preceptor_client.contract import (
    AxisGate,
    BatchRequest,
    Composite,
    Composition,
    JudgeRequest,
    JudgeResponse,
    Message,
    Mode,
    Problem,
    Provenance,
    RewriteRequest,
    RewriteResponse,
    RubricInfo,
    RubricSpec,
    Sampling,
)

HASH = "0" * 16
RequestT = TypeVar("RequestT", JudgeRequest, RewriteRequest, BatchRequest)


def score_by_hash(axis: str, prefix: str, text: str) -> float:
    """Some score in [0, 1], always the same for the same texts."""
    digest = hashlib.sha256("\0".join((axis, prefix, text)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def copied(prefix: str, suffix: str) -> str:
    """The suffix itself."""
    return suffix


def composite(composition: Composition, candidate_id: str, found: Mapping[str, float | None]) -> Composite:
    """The weighted mean of what the gates on axes let count; gates on the text hold."""
    scores = {axis: score for axis, score in found.items() if score is not None}
    if missing := [axis for axis in composition.axes if axis not in scores]:
        return Composite(candidate_id=candidate_id, score=None, reason=f"no score on {', '.join(missing)}")
    failed = [g for g in composition.gates if isinstance(g, AxisGate) and scores[g.axis] < g.minimum]
    lost = {axis for gate in failed for axis in gate.guards or composition.weights}
    counted = sum(weight * scores[axis] for axis, weight in composition.weights.items() if axis not in lost)
    return Composite(
        candidate_id=candidate_id,
        score=min(1.0, counted / sum(composition.weights.values())),
        failed_gates=tuple(f"{gate.axis} {scores[gate.axis]:g} < {gate.minimum:g}" for gate in failed),
    )


def provenance(rubric: str, sampling: Sampling) -> Provenance:
    """What the fake says of itself."""
    return Provenance(teacher="fake", revision="fake", rubric=rubric, rubric_hash=HASH, sampling=sampling)


def rubric_info(axis: str) -> RubricInfo:
    """A rubric that the fake says it has."""
    spec = RubricSpec(
        axis=axis, mode=Mode.POINTWISE, prompt="{{ candidate }}", labels={"good": 1.0, "bad": 0.0}, parser="exact"
    )
    return RubricInfo(name=f"fake/{axis}", hash=HASH, default=True, spec=spec)


def failed(response: Message) -> bool:
    """Whether asking again may bring more."""
    return isinstance(response, JudgeResponse | RewriteResponse) and not response.final


class ProblemError(Exception):
    """An error to be answered as `application/problem+json`."""

    def __init__(self, status: int, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self._status = status
        self._retry_after_s = retry_after_s

    def problem(self, request_id: str | None) -> Problem:
        """The error as a message."""
        title = HTTPStatus(self._status).phrase
        return Problem(title=title, status=self._status, detail=str(self), request_id=request_id)

    def response(self, request_id: str) -> httpx.Response:
        """The error as it goes over the wire."""
        headers = {"Content-Type": "application/problem+json", "X-Request-ID": request_id}
        if self._retry_after_s is not None:
            headers["Retry-After"] = f"{self._retry_after_s:g}"
        content = self.problem(request_id).model_dump_json().encode()
        return httpx.Response(self._status, content=content, headers=headers)


def decoded(content: bytes, model: type[RequestT]) -> RequestT:
    """The request in a body. Raises ProblemError, which names the keys that are wrong."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        problems = [(".".join(map(str, each["loc"])) or "body", in_words(each)) for each in error.errors()]
        raise ProblemError(422, "; ".join(f"{key}: {what}" for key, what in problems)) from None
