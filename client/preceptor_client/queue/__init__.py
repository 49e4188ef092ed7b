"""The queue between trainer and judge workers, on Redis Streams (>= 6.2). Needs the extra `preceptor[queue]`.

    submit -> `cohorts` -> take ... renew ... settle -> `verdicts:<run>` -> outcomes -> forget
                 ^           |                  \\-> bury -> `dead` (and a notice to the run)
                 +-----------+ hand_back, or the lease ran out

`CohortQueue` is the producer's, the reader's and the worker's side, `QueueOperations` the operator's. See
docs/queue.md.
"""

from preceptor_client.queue.connection import check_redis, connect, redis_from_url
from preceptor_client.queue.operations import QueueOperations
from preceptor_client.queue.queue import CohortQueue
from preceptor_client.queue.records import DeadLetter, Delivery, Outcome, QueueStatus, RunStatus
from preceptor_client.queue.riding import (
    QueueMisfit,
    QueueUnavailable,
    Ride,
    Trouble,
    TroubleKind,
    blocking_read,
    trouble_of,
)
from preceptor_client.queue.steps import GROUP

__all__ = [
    "GROUP",
    "CohortQueue",
    "DeadLetter",
    "Delivery",
    "Outcome",
    "QueueMisfit",
    "QueueOperations",
    "QueueStatus",
    "QueueUnavailable",
    "Ride",
    "RunStatus",
    "Trouble",
    "TroubleKind",
    "blocking_read",
    "check_redis",
    "connect",
    "redis_from_url",
    "trouble_of",
]
