"""The verdict cache: answers that the teacher gave before to the very same question, kept in Redis.

In: keys of questions (see `cache_key`). Out: the answers that are there. Only answers that were read are put in.
Guarantees: two questions share a key only if teacher and weights, room for thoughts, rubric, prompt and sampling are
all the same; weights of which nobody knows the revision are told apart by where the server loaded them from. A Redis
that is away makes every question a miss and delays none for more than a moment: it is left alone for a while after an
error. Raises nothing. Waits for Redis, as briefly as `brief_redis` does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError

from preceptor_services.brief_redis import brief_redis
from preceptor_services.engine import Answer, Generation, Prompt, Served
from preceptor_services.metrics import Metrics
from preceptor_services.settings import Reasoning

log = logging.getLogger(__name__)

_REST_S = 5.0
"""How long Redis is left alone after an error."""


def cache_key(
    served: Served, thinking: tuple[Reasoning, int], rubric_hash: str, prompt: Prompt, generation: Generation
) -> str:
    """What a question and all that decides its answer have in common with nothing else."""
    content = [asdict(served), thinking, rubric_hash, asdict(prompt), asdict(generation)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class VerdictCache:
    """Use as `async with VerdictCache(...) as cache`."""

    def __init__(self, url: str, metrics: Metrics, *, namespace: str, ttl_s: int) -> None:
        self._redis = brief_redis(url)
        self._metrics = metrics
        self._prefix = f"{namespace}:verdict:"
        self._ttl_s = ttl_s
        self._resting_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._redis.aclose()

    async def get(self, keys: Sequence[str]) -> list[Answer | None]:
        """The answers there are, in the order of `keys`."""
        found: list[Any] = [None] * len(keys)
        if not self._resting:
            try:
                found = await self._redis.mget([self._prefix + key for key in keys])
            except RedisError as error:
                self._rest(error)
        answers = [None if content is None else _decode(content) for content in found]
        hits = sum(answer is not None for answer in answers)
        self._metrics.cache_lookups.labels("hit").inc(hits)
        self._metrics.cache_lookups.labels("miss").inc(len(keys) - hits)
        return answers

    async def put(self, answers: Mapping[str, Answer]) -> None:
        """Keep these answers."""
        if self._resting or not answers:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, answer in answers.items():
            pipeline.set(self._prefix + key, _encode(answer), ex=self._ttl_s)
        try:
            await pipeline.execute()
        except RedisError as error:
            self._rest(error)

    @property
    def _resting(self) -> bool:
        return time.monotonic() < self._resting_until

    def _rest(self, error: RedisError) -> None:
        log.warning("the verdict cache is away (%s): every question goes to the teacher for %g s", error, _REST_S)
        self._metrics.cache_errors.inc()
        self._resting_until = time.monotonic() + _REST_S


def _encode(answer: Answer) -> bytes:
    return json.dumps(
        [list(answer.texts), list(answer.reasoning), list(answer.cut_off), answer.bound], ensure_ascii=True
    ).encode()


def _decode(content: bytes) -> Answer | None:
    """The answer; None if the entry is not one, which is then asked for anew."""
    try:
        texts, reasoning, cut_off, bound = json.loads(content)
        return Answer(tuple(texts), tuple(reasoning), tuple(cut_off), bool(bound))
    except (ValueError, TypeError):
        return None
