"""Spans as the packages speak of them, without OpenTelemetry: a process that does not trace has nothing but this.

In: names, times, attributes. Out: nothing, until `use` gives the process a `Tracer`. Guarantees: without one every call
here returns at once and keeps nothing; a span never holds an exception's message, only its type. Where a span belongs
is a `traceparent` (W3C Trace Context), which travels as text: in a task, an outcome, an HTTP header. Attributes are
named `preceptor.<name>`, but for those that have a dot already (OpenTelemetry's own conventions). Times are in seconds
since 1970. Waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType, TracebackType
from typing import Literal, Protocol, Self

About = Mapping[str, str | bool | int | float | Sequence[str] | None]
"""Attributes; those that are None are left out."""
NOTHING: About = MappingProxyType({})
Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Span:
    """A part of a story; as a context manager it is the current one, and ends with the block. This one forgets
    everything: it is that of a process that does not trace."""

    traceparent: str | None = None
    """Where what follows from it belongs; None if nothing is traced."""

    def set(self, about: About) -> None:
        """Add what is known by now."""

    def rename(self, name: str) -> None:
        """Give it the name that is known by now."""

    def link(self, traceparent: str | None) -> None:
        """Point at a span of another story."""

    def fail(self, why: str) -> None:
        """It did not end as it should. `why` is one of few words, never a text of a model or a user."""

    def end(self, at_s: float | None = None) -> None:
        """It is over, now or since then. What a block begins needs no such call."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


UNTRACED = Span()


class Tracer(Protocol):
    """What records spans."""

    def begin(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Iterable[str | None],
        since_s: float | None,
        about: About,
    ) -> Span:
        """A span that has begun; without `parent` it belongs to the current one, if there is one."""

    def traceparent(self) -> str | None:
        """Of the current span."""


_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> Tracer | None:
    """Record by `tracer` from here on, in the whole process; None: not at all. Returns the one before."""
    global _tracer
    before, _tracer = _tracer, tracer
    return before


def is_on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def begin(
    name: str,
    about: About = NOTHING,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Iterable[str | None] = (),
    since_s: float | None = None,
) -> Span:
    """A span that whoever holds it ends; it has begun now, or at `since_s`."""
    if _tracer is None:
        return UNTRACED
    return _tracer.begin(name, kind=kind, parent=parent, links=links, since_s=since_s, about=about)


def span(
    name: str,
    about: About = NOTHING,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Iterable[str | None] = (),
) -> AbstractContextManager[Span]:
    """A span for a block."""
    return begin(name, about, kind=kind, parent=parent, links=links)


def shared(name: str, parts: Sequence[Span], about: About = NOTHING, *, kind: Kind = "internal") -> Span:
    """Work that several stories have in common: it is told in that of the first of `parts`, and points at the others,
    which point at it."""
    first, *others = parts
    links = [other.traceparent for other in others]
    work = begin(name, about, kind=kind, parent=first.traceparent, links=links)
    for other in others:
        other.link(work.traceparent)
    return work


def record(
    name: str,
    about: About = NOTHING,
    *,
    kind: Kind = "internal",
    parent: str | None,
    since_s: float,
    until_s: float | None = None,
    links: Iterable[str | None] = (),
) -> None:
    """A span that is over, part of `parent`'s story; of no story it is not recorded."""
    if parent is not None:
        begin(name, about, kind=kind, parent=parent, since_s=since_s, links=links).end(until_s)


def traceparent() -> str | None:
    """Of the current span, for what is sent on its behalf."""
    return None if _tracer is None else _tracer.traceparent()


def headers() -> dict[str, str]:
    """The same as HTTP headers; none if nothing is traced."""
    current = traceparent()
    return {} if current is None else {"traceparent": current}
