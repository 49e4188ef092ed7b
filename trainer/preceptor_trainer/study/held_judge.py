"""A queue worker that asks the judge service at once and gives every answer out late, by a number of cohorts.

In: cohorts. Out: the service's response to each, in their order, once `hold` younger ones have come. So a run whose
slots are all taken trains on rollouts as old as its limit allows, however fast the judge is. When none has come for
some seconds, the run has no more to submit: from then on nothing is held. Ends when it is told to.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from preceptor_client import AsyncPreceptorClient
from preceptor_client.contract import JudgeResponse
from preceptor_client.queue import CohortQueue, Delivery, connect
from preceptor_client.stack import Endpoints, Part, Stack
from preceptor_trainer.config import TrainConfig

_LEASE_MS = 600_000
_AT_ONCE = 4
"""Cohorts at the service."""
_QUIET_TAKES = 5
"""Of a second each."""


@contextmanager
def held_judge(stack: Stack, endpoints: Endpoints, config: TrainConfig, hold: int) -> Iterator[None]:
    """While the block lasts, such a worker answers `config`, whose namespace has to be its own."""
    arguments = {
        "redis-url": endpoints.redis_url,
        "namespace": config.judge.namespace,
        "judge-url": endpoints.judge_url,
        "hold": hold,
    }
    command = [sys.executable, "-m", "preceptor_trainer.study.held_judge"]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    judge = stack.launch(Part(f"judge of {config.run}", tuple(command), config.out / "judge.log"))
    yield
    stack.stop_part(judge)


async def serve(redis_url: str, namespace: str, judge_url: str, hold: int) -> None:
    """Never returns. Raises what the client raises."""
    queue = CohortQueue(connect(redis_url), namespace=namespace)
    await queue.open_group()
    held: deque[tuple[Delivery, asyncio.Task[JudgeResponse]]] = deque()
    asking = asyncio.Semaphore(_AT_ONCE)
    quiet = 0
    async with AsyncPreceptorClient(judge_url=judge_url) as client, asyncio.TaskGroup() as judging:

        async def judge(delivery: Delivery) -> JudgeResponse:
            async with asking:
                return await client.judge(delivery.task.request)

        while True:
            deliveries = await queue.take("held", count=_AT_ONCE, lease_ms=_LEASE_MS)
            held.extend((delivery, judging.create_task(judge(delivery))) for delivery in deliveries)
            quiet = 0 if deliveries or not held else quiet + 1
            if quiet >= _QUIET_TAKES:
                hold = 0
            while len(held) > hold:
                delivery, response = held.popleft()
                await queue.settle(delivery, await response)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--judge-url", required=True)
    parser.add_argument("--hold", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.redis_url, options.namespace, options.judge_url, options.hold))


if __name__ == "__main__":
    main()
