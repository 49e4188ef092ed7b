"""How a command that works on something for hours is stopped: after what it is at, or at once.

In: work that looks at a `stop` event. Out: the signal that ended it, or None. The first SIGINT or SIGTERM sets the
event, a second one cancels the work.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable


async def until_signalled(work: Callable[[asyncio.Event], Awaitable[bool]]) -> signal.Signals | None:
    """Do `work`, which returns whether it came to its end."""
    stop, came = asyncio.Event(), list[signal.Signals]()
    running = asyncio.current_task()
    assert running is not None

    def note(number: signal.Signals) -> None:
        came.append(number)
        if stop.is_set():
            running.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, note, number)
    try:
        finished = await work(stop)
    except asyncio.CancelledError:
        finished = False
    return None if finished else came[0]
