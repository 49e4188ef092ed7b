"""What can go wrong with a call, as types. Every error carries the request id, by which the service logs it."""

from __future__ import annotations

from functools import partial
from typing import Any

from preceptor_client.contract import Problem


class PreceptorError(Exception):
    """Base of all errors of the clients. `problem` is what the service said, None if it said nothing."""

    def __init__(self, message: str, *, request_id: str, problem: Problem | None = None) -> None:
        super().__init__(f"{message} (request {request_id})")
        self._message = message
        self.request_id = request_id
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        """It may have to cross to another process: a trainer's workers raise there."""
        return partial(type(self), request_id=self.request_id, problem=self.problem), (self._message,)


class ServiceUnreachableError(PreceptorError):
    """No answer: the connection failed or time ran out."""


class UnexpectedResponseError(PreceptorError):
    """An answer that does not follow the contract: another program, or a service of another version."""


class StatusError(PreceptorError):
    """The service answered with an error status. Always carries a `problem`."""


class InvalidRequestError(StatusError):
    """The request itself is wrong (4xx): sending it again cannot help."""


class AuthenticationError(StatusError):
    """The API key is missing or wrong (401, 403)."""


class RateLimitedError(StatusError):
    """Too many requests (429)."""


class ServiceError(StatusError):
    """The service or its teacher failed (5xx)."""


def status_error(problem: Problem, *, request_id: str) -> StatusError:
    """The error for an answer with an error status."""
    kind: type[StatusError]
    match problem.status:
        case 401 | 403:
            kind = AuthenticationError
        case 429:
            kind = RateLimitedError
        case status if status < 500:
            kind = InvalidRequestError
        case _:
            kind = ServiceError
    message = f"{problem.status} {problem.title}" + (f": {problem.detail}" if problem.detail else "")
    return kind(message, request_id=request_id, problem=problem)
