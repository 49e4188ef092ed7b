"""What keeps a Redis from serving, as a process sees it: counted, logged once per change, and there to be shown.

In: what a queue or a `Ride` reports, `Trouble`s and None. Out: `trouble`, the metric `preceptor_queue_errors_total`.
"""

from __future__ import annotations

import logging

from preceptor_client.queue import Trouble
from preceptor_services.metrics import Metrics

log = logging.getLogger(__name__)


class Troubles:
    """An `on_trouble`. `what` is what the Redis is for, in messages."""

    def __init__(self, what: str, metrics: Metrics) -> None:
        self._what = what
        self._metrics = metrics
        self._present: Trouble | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps it from serving now."""
        return None if self._present is None else f"the {self._what} waits: {self._present}"

    def __call__(self, trouble: Trouble | None) -> None:
        before, self._present = self._present, trouble
        if trouble is None:
            if before is not None:
                log.info("the %s goes on", self._what)
            return
        self._metrics.queue_errors.labels(trouble.kind).inc()
        if before is None or before.kind != trouble.kind:
            log.warning("the %s waits until it passes: %s", self._what, trouble)
