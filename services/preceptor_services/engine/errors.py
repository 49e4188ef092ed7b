"""What can go wrong with a call to the engine."""

from __future__ import annotations

from typing import Literal

Kind = Literal["unreachable", "timeout", "overloaded", "broken", "rejected"]
REPEATABLE: frozenset[Kind] = frozenset({"unreachable", "overloaded", "broken"})
_OF_THE_PROMPT = frozenset({400, 413, 422})


class EngineError(Exception):
    """The engine gave no usable answer; `kind` says why, and so whether repeating can help."""

    def __init__(self, kind: Kind, detail: str, *, pause_s: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.pause_s = pause_s
        """How long the server is to be left alone."""
        self.status = status

    @property
    def of_the_prompt(self) -> bool:
        """Whether the server refused what it was asked, as it would again: too long, say."""
        return self.kind == "rejected" and self.status in _OF_THE_PROMPT
