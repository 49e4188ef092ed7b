"""What several commands share: consoles, the error that a command ends with, JSON lines, the service options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Console

from preceptor_client.config import describe
from preceptor_client.settings import ClientSettings

MessageT = TypeVar("MessageT")

stdout = Console()
stderr = Console(stderr=True)


class CommandError(Exception):
    """A command cannot go on; the text says what to change."""


def settings_with(**given: str | None) -> ClientSettings:
    """The environment's settings with the options that were given on top."""
    try:
        base = ClientSettings()
        return ClientSettings.model_validate(
            {**base.model_dump(), **{name: value for name, value in given.items() if value is not None}}
        )
    except ValidationError as error:
        raise CommandError(f"the settings (PRECEPTOR_...) do not hold:\n{describe(error)}") from None


def read_lines(file: Path, kind: TypeAdapter[MessageT]) -> Iterator[tuple[str, MessageT]]:
    """Each line of a JSONL file (`-` is stdin) with its place. Raises `CommandError` naming file and line."""
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield f"{file}:{number}", kind.validate_json(line)
        except ValidationError as error:
            raise CommandError(f"{file}:{number} does not hold:\n{describe(error)}") from None


def print_json(message: BaseModel) -> None:
    """One line of JSON on stdout."""
    print(message.model_dump_json(), flush=True)


def shortened(text: str, limit: int = 60) -> str:
    """A text on one line, for a table."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
