"""RQ at both ends: `judge` is the job, and as a program this is the producer. Runs in the peers' environment.

    rq worker --worker-class rq.worker.SimpleWorker ...      python -m benchmarks.queue_parts.rq_side

Jobs are enqueued many at a time; the worker is the one that does not fork for each of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from redis import Redis
from rq import Queue  # type: ignore[import-not-found]

from benchmarks.queue_parts.rounds import AT_ONCE, serve

NAME = "benchmark"
_JUDGE = "benchmarks.queue_parts.rq_side.judge"
_FOLDER = Path(os.environ["BENCHMARK_FOLDER"])
_TASK, _RESPONSE = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("task.json", "response.json"))


def judge(task: str) -> str:
    """The null judge."""
    return _RESPONSE


def produce(queue: Queue, count: int) -> None:
    """Enqueue `count` jobs and read as many results."""
    jobs = []
    for start in range(0, count, AT_ONCE):
        many = [Queue.prepare_data(_JUDGE, (_TASK,), result_ttl=600) for _ in range(min(AT_ONCE, count - start))]
        jobs += queue.enqueue_many(many)
    for job in jobs:
        result = job.latest_result(timeout=300)
        assert result is not None
        assert result.return_value == _RESPONSE


if __name__ == "__main__":
    with Redis.from_url(os.environ["BENCHMARK_REDIS"]) as redis:
        queue = Queue(NAME, connection=redis)
        serve(lambda count: produce(queue, count))
