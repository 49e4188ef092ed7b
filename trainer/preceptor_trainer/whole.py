"""Files and folders that are there whole or not at all.

In: a path, and how to make what belongs there. Out: the path. Guarantees: what is there is not made again; what was
left half made is not taken for it. Blocks for the disk, and for as long as making it takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def made_once(target: Path, make: Callable[[Path], Any]) -> Path:
    """`target`, made now unless it is there: `make` is given a place beside it."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        if partial.is_dir():
            shutil.rmtree(partial)
        make(partial)
        partial.rename(target)
    return target
