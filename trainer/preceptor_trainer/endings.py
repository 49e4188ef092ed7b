"""How a command of the trainer ends: exit status, one line on stderr, and signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

DRIFTED = 3
INTERRUPTED = 130
TERMINATED = 143


def failed(command: str, why: object, status: int) -> typer.Exit:
    """To be raised: says why `command` ends with `status`."""
    typer.echo(f"preceptor {command}: {why}", err=True)
    return typer.Exit(status)


@contextmanager
def told_of_signals(command: str) -> Iterator[None]:
    """SIGTERM ends the block as SIGINT does, and both are told in one line."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)  # which event loops know how to end for

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            raise failed(command, "stopped by SIGTERM", TERMINATED) from None
        raise failed(command, "stopped by SIGINT", INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
