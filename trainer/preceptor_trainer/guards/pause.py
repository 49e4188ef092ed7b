"""A pause: the run has ended with a checkpoint, and its process waits for the operator's word to go on from there.

In: the run's folder and what drifted. Out: whether to go on. The word is that `<out>/PAUSED` is removed, which works
from any machine and under any launcher. Guarantees: what it waits for is said at the beginning and every few minutes;
it ends after `limit_s`, by `stop` at once, and leaves no file behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from preceptor_trainer.guards.watch import Drifted

PAUSED_FILE = "PAUSED"
_LOOK_EVERY_S = 0.5
"""No event tells that a file is gone."""
_SAY_EVERY_S = 300.0


async def pause(out: Path, why: Drifted, stop: asyncio.Event, limit_s: float, say: Callable[[str], None]) -> bool:
    """True when the file is removed, False when `stop` comes. Raises `why` after `limit_s`."""
    path = out / PAUSED_FILE
    path.write_text(f"{why}\nTo go on from the last checkpoint, remove this file.\n", encoding="utf-8")
    started = time.monotonic()
    said_at = -_SAY_EVERY_S
    try:
        while path.exists():
            waited_s = time.monotonic() - started
            if waited_s >= limit_s:
                raise why
            if waited_s - said_at >= _SAY_EVERY_S:
                said_at = waited_s
                say(
                    f"paused: {why}. Remove {path} and it goes on from its last checkpoint; "
                    f"it stops by itself in {limit_s - waited_s:.0f} s, or by Ctrl-C"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(_LOOK_EVERY_S, limit_s - waited_s))
                return False
    finally:
        path.unlink(missing_ok=True)
    return True
