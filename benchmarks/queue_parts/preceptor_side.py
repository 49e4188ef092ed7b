"""The cohort queue at both ends, each a process: `python -m benchmarks.queue_parts.preceptor_side ROLE URL FOLDER`.

Roles: `producer` (submit_many, outcome_pages, forget), `taker` (take, null judge, settle_many) and `worker` (the
shipped `Worker` with a null judge). The null judge answers at once with the response that was kept in FOLDER, under
the cohort's own id. A producer for the worker, and the worker, use a namespace of their own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.queue_parts.payload import RUN, load
from benchmarks.queue_parts.rounds import AHEAD, AT_ONCE, serve
from preceptor_client.collector import collect_less
from preceptor_client.contract import JudgeRequest, JudgeResponse, JudgeTask
from preceptor_client.queue import CohortQueue, Delivery, connect
from preceptor_services.assembly import Engines
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.quarantine import Quarantine
from preceptor_services.worker import Worker

TAKER, WORKER = "taker", "worker"


class NullJudge:
    """Answers at once."""

    def __init__(self, response: JudgeResponse) -> None:
        self._response = response

    def answer(self, request: JudgeRequest) -> JudgeResponse:
        """The kept response, for this cohort."""
        return self._response.model_copy(update={"cohort_id": request.cohort.id})

    async def judge(self, request: JudgeRequest, **_: Any) -> JudgeResponse:
        """The same, as the worker asks for it."""
        return self.answer(request)


async def produce(url: str, namespace: str, tasks: Sequence[JudgeTask]) -> None:
    """Submit `tasks`, and return when the response to each was read and forgotten."""
    async with connect(url) as redis:
        queue = CohortQueue(redis, bound=AHEAD, namespace=namespace)
        submitting = asyncio.create_task(_submit(queue, tasks))
        answered: set[str] = set()
        async with aclosing(queue.outcome_pages(RUN)) as pages:
            async for page in pages:
                assert all(outcome.response for outcome in page), page[0].dead
                answered.update(outcome.cohort_id for outcome in page)
                await queue.forget(RUN, page)
                if len(answered) == len(tasks):
                    break
        await submitting


async def _submit(queue: CohortQueue, tasks: Sequence[JudgeTask]) -> None:
    new = await queue.submit_many(tasks)
    assert all(new), "a cohort of an earlier round is still there"


async def take(url: str, judge: NullJudge) -> None:
    """Answer whatever comes, for ever."""
    async with connect(url) as redis:
        queue = CohortQueue(redis, namespace=TAKER)
        await queue.open_group()
        deliveries: list[Delivery] = []
        while True:
            # The next are on their way while these are answered, as in the worker.
            taking = asyncio.create_task(queue.take("taker", count=AT_ONCE))
            answers = [(delivery, judge.answer(delivery.task.request)) for delivery in deliveries]
            assert all(await queue.settle_many(answers)), "superseded"
            deliveries = await taking


async def work(url: str, judge: NullJudge) -> None:
    """The same by the worker as it is shipped."""
    async with connect(url) as redis:
        quarantine = Quarantine(redis, namespace=WORKER, lease_s=15)
        worker = Worker(
            CohortQueue(redis, namespace=WORKER),
            cast(Judge, judge),
            Engines([], 0),
            quarantine,
            Metrics(),
            concurrency=AT_ONCE,
            lease_s=15,
            grace_s=1,
        )
        await worker.run(asyncio.Event())


def main(role: str, url: str, folder: Path, namespace: str = TAKER) -> None:
    """Run one end."""
    collect_less()  # as the trainer's and the worker's processes do
    task, response = load(folder)
    if role == "producer":
        template, tasks = JudgeTask.model_validate_json(task), list[JudgeTask]()

        def prepare(count: int) -> None:
            request = template.request
            tasks[:] = [
                template.model_copy(
                    update={
                        "request": request.model_copy(
                            update={"cohort": request.cohort.model_copy(update={"id": f"w{number:07}"})}
                        )
                    }
                )
                for number in range(count)
            ]

        serve(lambda _: asyncio.run(produce(url, namespace, tasks)), prepare)
    else:
        judge = NullJudge(JudgeResponse.model_validate_json(response))
        uvloop.run((take if role == "taker" else work)(url, judge))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
