"""Waiting for a helper that is away: longer and longer between two tries, and not for ever."""

from __future__ import annotations

import asyncio
import random
import time

SHORTEST_S = 0.1
LONGEST_S = 5.0


class Patience:
    """`limit_s` from `since` (of `time.monotonic`) on, or from the first pause."""

    def __init__(self, limit_s: float, since: float | None = None) -> None:
        self._limit_s = limit_s
        self._since = since

    async def pause(self) -> bool:
        """After a failed try: sleep, and True; at once False if the patience is over."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited_s = now - self._since
        left_s = self._limit_s - waited_s
        if left_s <= 0:
            return False
        # About as long again as it took so far: the pauses double. At random, so that many do not come back at once.
        pause_s = min(max(waited_s, SHORTEST_S), LONGEST_S) * random.uniform(0.5, 1.0)
        await asyncio.sleep(min(pause_s, left_s))
        return True
