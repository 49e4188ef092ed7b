"""How often Python searches for reference cycles, in processes that pass many small messages on.

Messages hold no cycles and die by their reference counts, yet every 700 objects Python looks whether the new ones do:
reading a page of responses made it look a dozen times, which took half as long as reading them. Call once, at the
start of a process; cycles are still found, some megabytes later.
"""

from __future__ import annotations

import gc

_NEW_OBJECTS = 20_000
"""More than a page of outcomes has."""


def collect_less() -> None:
    """For this process, from now on."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
