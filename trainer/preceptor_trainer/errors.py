"""What can go wrong in training and is worth telling a user in one line."""

from __future__ import annotations


class TrainError(RuntimeError):
    """The run cannot go on; the text says why and what to change."""


def one_line(text: str) -> str:
    """`text` with its line breaks and indents as single spaces."""
    return " ".join(text.split())
