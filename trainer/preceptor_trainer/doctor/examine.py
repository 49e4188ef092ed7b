"""All checks of a configuration, in an order in which each has what it needs.

In: a `TrainConfig`. Out: `Check`s as they are made. A check whose ground is missing (no tokenizer, no window, no
worker) is left out: what is missing has failed already. Waits for the disk, a model hub and the services, each for a
bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging

from preceptor_client.checks import Check, check_queue
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.doctor.documents import check_documents, check_held_out
from preceptor_trainer.doctor.judging import check_judges
from preceptor_trainer.doctor.policy import check_policy
from preceptor_trainer.doctor.room import check_disk, check_memory
from preceptor_trainer.doctor.services import check_policy_server, check_rewriting, check_workers
from preceptor_trainer.doctor.versions import check_packages, check_parts


def examine(config: TrainConfig, *, services: bool) -> Iterator[Check]:
    """Everything that `config` asks for; `services` False leaves out what runs elsewhere."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    yield from check_packages()
    yield from check_parts(config)
    policy = yield from check_policy(config)
    if policy and policy.sizes:
        yield from check_memory(config, policy.sizes)
        yield from check_disk(config, policy.sizes)
    windows = []
    if policy:
        windows = yield from check_documents(config, policy.codec)
        yield from check_held_out(config, policy.codec)
    if not services:
        return
    if config.pool.rollouts and config.rollouts.engine == "vllm":
        yield from asyncio.run(check_policy_server(config))
    rewrite = None
    if config.pool.rewrite:
        found, rewrite = asyncio.run(check_rewriting(config, policy, windows))
        yield from found
    if not config.judged:
        return
    redis = list(
        check_queue(config.judge.redis_url, "failure", key="judge.redis_url", namespace=config.judge.namespace)
    )
    yield from redis
    if any(check.grade == "failure" for check in redis):
        return
    workers = asyncio.run(check_workers(config.judge))
    yield workers
    if policy and windows and workers.grade == "ok":
        yield from asyncio.run(check_judges(config, policy.codec, windows, rewrite))
