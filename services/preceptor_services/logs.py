"""What the processes of the services log: one line an event, to stderr, as JSON or for people to read.

In: records of every logger of the process, uvicorn's and httpx' among them. Out: lines with time, level, logger,
message, the id of the request they belong to, and what the event itself brings.
Guarantees: without `texts` no line holds a prefix, a candidate, a rewrite or a teacher's reason: nothing here logs
them, and of an exception only type and place are told, since its message may quote what it could not handle. API keys
and headers are never logged.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

from pydantic import BaseModel
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from preceptor_services.settings import LogSettings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set at the HTTP edge; engine calls made for the request inherit it."""

_texts = logging.getLogger("preceptor_services.texts")
_TALKATIVE = ("httpx", "httpcore", "asyncio", "uvicorn.access", "redis")
"""Libraries whose lines below a warning repeat ours, or hold headers."""
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def set_up(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Log as `settings` say, from here on and in the whole process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(settings.texts) if settings.format == "json" else _Plain(settings.texts))
    handler.addFilter(_add_request_id)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    _texts.disabled = not settings.texts


def log_texts(request: BaseModel, answer: BaseModel) -> None:
    """Log what was asked and answered, if the settings ask for texts."""
    if _texts.isEnabledFor(logging.INFO):
        content = {"request": request.model_dump(mode="json"), "answer": answer.model_dump(mode="json")}
        _texts.info("answered", extra=content)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def _without_messages(error: BaseException) -> str:
    """The traceback of `error` and what led to it, without what any of them says."""
    parts = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        parts.append(f"{_without_messages(cause)}\nled to:")
    parts += traceback.format_tb(error.__traceback__)
    parts.append(f"{type(error).__module__}.{type(error).__qualname__}")
    return "\n".join(part.rstrip() for part in parts)


class _Discreet(logging.Formatter):
    """Tells of exceptions what the settings allow."""

    texts: bool

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802
        return logging.Formatter.formatException(self, ei) if self.texts or ei[1] is None else _without_messages(ei[1])


class _Json(_Discreet, JsonFormatter):
    def __init__(self, texts: bool) -> None:
        super().__init__(
            ["levelname", "name", "message", "request_id"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's
            timestamp="time",
        )
        self.texts = texts


class _Plain(_Discreet):
    def __init__(self, texts: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.texts = texts

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        line, request = super().formatMessage(record), record.__dict__.get("request_id")
        return line if request is None else f"{line} [request {request}]"
