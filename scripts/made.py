"""Files that a script makes and that are checked in."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def made(files: Mapping[Path, str], *, by: str, check: bool, others: Iterable[Path] = ()) -> int:
    """Write `files`, or `check` that they are there as they would be written, and none of `others` besides. Returns the
    exit status: 1 if the check fails.
    """
    if not check:
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return 0
    wrong = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    wrong += [path for path in others if path not in files]
    for path in wrong:
        print(f"{path} is not what {by} makes", file=sys.stderr)
    return 1 if wrong else 0
