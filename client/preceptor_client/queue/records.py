"""What the queue hands out, and how entries of its streams are read. No I/O.

In: fields of an entry, which anyone may have written: any bytes. Out: a task or an outcome. Raises `UnreadableEntry`
for everything else, and nothing but that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from preceptor_client.config import describe
from preceptor_client.contract import Identifier, JudgeResponse, JudgeTask
from preceptor_client.contract.base import as_traceparent

Fields = Mapping[bytes, bytes]

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_LONGEST_REASON = 2_000


@dataclass(frozen=True)
class Delivery:
    """A task in a worker's hands, for the `attempt`-th time; it stays in the stream until it is settled or buried."""

    entry_id: str
    task: JudgeTask
    attempt: int = 1
    last_error: str | None = None
    """Of the attempt before, if whoever had it handed it back with one."""

    @property
    def submitted_at_s(self) -> float:
        """In seconds since 1970, by the clock of Redis."""
        return written_at_s(self.entry_id)


@dataclass(frozen=True)
class Outcome:
    """How a cohort ended: with a response, or as a dead letter, whose reason `dead` is. It stays until forgotten."""

    entry_id: str
    cohort_id: str
    response: JudgeResponse | None = None
    dead: str | None = None
    trace: str | None = None
    """The traceparent of whoever settled it, if that was traced."""

    @property
    def answered_at_s(self) -> float:
        """In seconds since 1970, by the clock of Redis."""
        return written_at_s(self.entry_id)


@dataclass(frozen=True)
class DeadLetter:
    """A task that no worker could answer. `run` and `cohort_id` are empty if they could not be told."""

    entry_id: str
    run: str
    cohort_id: str
    reason: str
    attempts: int
    last_error: str
    at: float
    """When it was buried, in seconds since 1970, by the clock of Redis."""
    task: str
    """JSON, as it was found."""


@dataclass(frozen=True)
class RunStatus:
    """Cohorts of a run: `waiting` for a worker, `in_flight` at one, `answered` and not yet forgotten, dead letters."""

    waiting: int
    in_flight: int
    answered: int
    dead: int
    oldest_s: float | None
    """Age of the oldest that has no answer."""


@dataclass(frozen=True)
class QueueStatus:
    """The same over all runs, and how many workers there are. Entries that belong to no run count here alone."""

    waiting: int
    in_flight: int
    dead: int
    oldest_s: float | None
    workers: int
    runs: dict[str, RunStatus]


class UnreadableEntry(ValueError):
    """The entry was not written by this queue. `run` and `cohort` are empty if they cannot be told."""

    def __init__(self, reason: str, run: str = "", cohort: str = "") -> None:
        super().__init__(f"cannot be decoded: {reason}")
        self.run = run
        self.cohort = cohort


def read_task(fields: Fields) -> JudgeTask:
    """The task of an entry of `cohorts`."""
    run, cohort = fields.get(b"run"), fields.get(b"cohort")
    try:
        task = JudgeTask.model_validate_json(fields.get(b"task", b""))
    except ValidationError as error:
        raise UnreadableEntry(describe(error), _identifier(run), _identifier(cohort)) from None
    if (task.run.encode(), task.request.cohort.id.encode()) != (run, cohort):
        raise UnreadableEntry("its task is another's", _identifier(run), _identifier(cohort))
    return task


def read_outcome(entry_id: str, fields: Fields) -> Outcome:
    """The outcome in an entry of `verdicts:<run>`."""
    cohort = fields.get(b"cohort")
    if b"dead" in fields and (name := _identifier(cohort)):
        return Outcome(entry_id, name, dead=as_text(fields[b"dead"]))
    try:
        response = JudgeResponse.model_validate_json(fields.get(b"response", b""))
    except ValidationError as error:
        raise UnreadableEntry(describe(error), cohort=_identifier(cohort)) from None
    if response.cohort_id.encode() != cohort:
        raise UnreadableEntry("its response is another's", cohort=_identifier(cohort))
    return Outcome(entry_id, response.cohort_id, response, trace=as_traceparent(as_text(fields.get(b"trace", b""))))


def read_letter(entry_id: str, fields: Mapping[str, str]) -> DeadLetter:
    """The dead letter in an entry of `dead`."""
    attempts = fields.get("attempts", "")
    return DeadLetter(
        entry_id,
        run=fields.get("run", ""),
        cohort_id=fields.get("cohort", ""),
        reason=fields.get("reason", ""),
        attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
        last_error=fields.get("error", ""),
        at=written_at_s(entry_id),
        task=fields.get("task", ""),
    )


def written_at_s(entry_id: str) -> float:
    """When an entry was appended to its stream, in seconds since 1970, by the clock of Redis."""
    return int(entry_id.partition("-")[0]) / 1000


def printable(text: str) -> str:
    """A reason as it may be written and shown: no surrogates, and not without end."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _LONGEST_REASON else plain[: _LONGEST_REASON - 1] + "…"


def as_text(raw: bytes) -> str:
    """What Redis holds: bytes that are no UTF-8 survive as surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def _identifier(raw: bytes | None) -> str:
    try:
        return _IDENTIFIER.validate_python(None if raw is None else as_text(raw))
    except ValidationError:
        return ""
