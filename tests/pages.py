"""What stands in the documents' fenced blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(page: Path, language: str = "") -> list[str]:
    """The blocks of `page` in that language, in order; those that name none by default."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for found, block in fenced if found == language]


def block_lines(block: str) -> list[str]:
    """Its lines, those that a backslash continues joined."""
    return block.replace("\\\n", " ").splitlines()
