"""What several commands share: consoles, the error that a command ends with, settings, texts cut to a line."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError
from rich.console import Console

from preceptor_client.config import describe
from preceptor_client.settings import ClientSettings

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


def print_json(message: BaseModel) -> None:
    """One line of JSON on stdout."""
    print(message.model_dump_json(), flush=True)


def shortened(text: str, limit: int = 60) -> str:
    """A text on one line, for a table."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
