"""A queue worker that judges at a set speed and uses no processor while it does.

In: cohorts. Out: for each, after its turn, scores drawn from its texts. One cohort after the other takes `cohort-s`, as
a server that is fully used; every answer is on its way for another `latency-s`. Ends when it is told to.
"""

from __future__ import annotations

import argparse
import asyncio
from zlib import crc32

from preceptor_client.contract import JudgeRequest, JudgeResponse, Status, Verdict
from preceptor_client.queue import CohortQueue, Delivery, connect
from preceptor_services.composition import compose

_LEASE_MS = 600_000
_AT_ONCE = 64


def answer(request: JudgeRequest) -> JudgeResponse:
    """A score for every candidate on every axis that depends on its text alone, so that there is always a best."""
    scores = {
        (candidate.id, axis): crc32(f"{axis} {candidate.text}".encode()) / 2**32
        for axis in request.axes
        for candidate in request.cohort.candidates
    }
    assert request.composition is not None
    return JudgeResponse(
        cohort_id=request.cohort.id,
        verdicts=tuple(
            Verdict(candidate_id=id, axis=axis, status=Status.OK, score=score) for (id, axis), score in scores.items()
        ),
        axes={},
        composites=compose(request.composition, request.cohort, scores),
        elapsed_s=0.0,
    )


async def serve(redis_url: str, namespace: str, *, cohort_s: float, latency_s: float) -> None:
    """Never returns."""
    now = asyncio.get_running_loop().time
    queue = CohortQueue(connect(redis_url), namespace=namespace)
    await queue.open_group()

    async def settle(delivery: Delivery, at: float) -> None:
        response = answer(delivery.task.request)
        await asyncio.sleep(at - now())
        await queue.settle(delivery, response)

    free_at = 0.0
    async with asyncio.TaskGroup() as settling:
        while True:
            for delivery in await queue.take("timed", count=_AT_ONCE, lease_ms=_LEASE_MS):
                free_at = max(free_at, now()) + cohort_s
                settling.create_task(settle(delivery, free_at + latency_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--cohort-s", type=float, required=True)
    parser.add_argument("--latency-s", type=float, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.redis_url, options.namespace, cohort_s=options.cohort_s, latency_s=options.latency_s))


if __name__ == "__main__":
    main()
