"""Celery at both ends: this module is its app, and as a program the producer. Runs in the peers' environment.

    celery -A benchmarks.queue_parts.celery_side worker ...      python -m benchmarks.queue_parts.celery_side

Settings as its guide to optimising gives them for many short tasks: a high prefetch, transient queues and no more
features than are used. Tasks are acknowledged as they are taken, its default, so a worker that dies loses what it has.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery  # type: ignore[import-not-found]
from celery.result import ResultSet  # type: ignore[import-not-found]

from benchmarks.queue_parts.rounds import AT_ONCE, serve

_URL, _FOLDER = os.environ["BENCHMARK_REDIS"], Path(os.environ["BENCHMARK_FOLDER"])
_TASK, _RESPONSE = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("task.json", "response.json"))

app = Celery("benchmark", broker=_URL, backend=_URL)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=AT_ONCE,
    task_default_delivery_mode="transient",
    task_track_started=False,
    worker_send_task_events=False,
    result_expires=600,
)


@app.task(name="judge")  # type: ignore[untyped-decorator]
def judge(task: str) -> str:
    """The null judge."""
    return _RESPONSE


def produce(count: int) -> None:
    """Send `count` tasks and read as many results."""
    with app.producer_pool.acquire(block=True) as producer:
        results = ResultSet([judge.apply_async((_TASK,), producer=producer) for _ in range(count)])
    answers = results.join_native(timeout=300)
    assert all(answer == _RESPONSE for answer in answers)


if __name__ == "__main__":
    serve(produce)
