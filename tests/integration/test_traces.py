"""One connected trace from a cohort's window to the update that it trained: the real loop, Redis, worker and services,
and a teacher whose answers are scripted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import Request, Response
from redis.asyncio import Redis
from starlette.middleware.base import RequestResponseEndpoint

from preceptor_client import tracing
from preceptor_client.contract import JudgeTask
from preceptor_client.queue import CohortQueue
from preceptor_services.app import rewrite_app
from preceptor_services.settings import ServiceSettings
from preceptor_services.work import work
from preceptor_trainer.ledger import read_ledger
from preceptor_trainer.run import run
from queued import a_task, answer, collect
from rule_judge import share_of_good_words
from served import scripted_teacher, served, wait_until_ready
from tiny_run import Build, tiny_run
from traced import about, id_of, parent_of, recording, said, traceparent_of


def by_good_words(prompt: str) -> str:
    """The better of two, and as a rewrite the suffix again."""
    task, _, rest = prompt.partition(" ")
    if not rest:  # a probe
        return "A"
    shown = rest.removesuffix("<answer>").split("<a>")[1]
    if task == "<rewrite>":
        return shown.strip()
    first, second = map(share_of_good_words, shown.split("<b>"))
    return "A" if first > second else "B" if second > first else "tie"


class Teacher:
    """Its URL, and the traceparent of each completions request that it was sent."""

    def __init__(self) -> None:
        self.told: list[str | None] = []
        self.app = scripted_teacher(by_good_words)

        @self.app.middleware("http")
        async def note(request: Request, call_next: RequestResponseEndpoint) -> Response:
            if request.url.path == "/v1/completions":
                self.told.append(request.headers.get("traceparent"))
            return await call_next(request)


@pytest.fixture
def teacher() -> Iterator[tuple[Teacher, str]]:
    teacher = Teacher()
    with served(teacher.app) as url:
        yield teacher, url


@asynccontextmanager
async def judging(settings: ServiceSettings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    worker = asyncio.create_task(work(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await worker


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Build:
    return tiny_run(tmp_path, redis_url)


def settings(url: str, redis_url: str) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {"engine": {"urls": [url], "heartbeat_s": 60}, "rubrics": ["nano"], "queue": {"url": redis_url}}
    )


PARENTS = {
    "rewrite": {"cohort"},
    "POST /v1/rewrite": {"rewrite"},
    "batched question": {"POST /v1/rewrite"},
    "engine batch": {"batched question"},
    "rollouts": {"cohort"},
    "submit": {"cohort"},
    "queue wait": {"cohort"},
    "delivery": {"cohort"},
    "judge cohort": {"delivery"},
    "engine call": {"judge cohort", "engine batch"},
    "engine request": {"engine call"},
    "settle": {"delivery"},
    "verdict wait": {"settle"},
    "buffer wait": {"cohort"},
    "train": {"cohort"},
}
"""Whose part each span is."""
SHARED = {"batched question", "engine batch"}
"""Told in one of the traces that it belongs to: equal windows are rewritten once, and others together."""


async def test_a_cohort_is_one_trace_from_its_window_to_the_update_that_it_trained(
    redis: Redis, redis_url: str, config: Build, teacher: tuple[Teacher, str]
) -> None:
    server, url = teacher
    services = settings(url, redis_url)
    with recording() as recorded, served(rewrite_app(services)) as rewrite_url:
        await asyncio.to_thread(wait_until_ready, rewrite_url)
        plan = config(steps=3, pool={"rewrite": True, "rollouts": 3}, rewrite={"url": rewrite_url, "ahead": 8})
        async with judging(services):
            await run(plan)

    trained = {end["cohort"]: end["step"] for end in read_ledger(plan.out / "cohorts.jsonl") if end["step"]}
    updates = {about(update, "step"): update for update in recorded.named("update")}
    assert set(updates) == {1, 2, 3}
    assert all(update.parent is None for update in updates.values())
    roots = {about(root, "cohort"): root for root in recorded.named("cohort") if about(root, "outcome") == "trained"}
    assert set(roots) == set(trained)
    names: set[str] = set()
    for cohort, root in roots.items():
        story = recorded.trace(root.context.trace_id)
        by_id = {id_of(span): span for span in story}
        assert [span for span in story if span.parent is None] == [root]
        for span in story:
            if span is not root:
                assert by_id[parent_of(span) or 0].name in PARENTS[span.name]
        of_story = {span.name for span in story}
        assert of_story - SHARED == {"cohort", *PARENTS} - SHARED
        names |= of_story
        [train] = [span for span in story if span.name == "train"]
        update = updates[trained[str(cohort)]]
        assert [link.context.span_id for link in train.links] == [id_of(update)]
        assert id_of(root) in {link.context.span_id for link in update.links}
    assert names >= SHARED
    assert sum(len(update.links) for update in updates.values()) == len(trained) == 12
    sent = [traceparent for traceparent in server.told if traceparent]
    assert sorted(sent) == sorted(map(traceparent_of, recorded.named("engine request")))
    assert not re.search(r"\bw\d+ w\d+\b", said(recorded.all)), "no span holds a text"


async def test_the_outcome_of_a_cohort_says_where_it_was_settled(redis: Redis) -> None:
    queue = CohortQueue(redis)
    await queue.open_group()
    await queue.submit_many([a_task("traced"), a_task("untraced")])
    traced, untraced = await queue.take("w", count=2)
    with recording() as recorded, tracing.span("settle"):
        await answer(queue, traced)
    await answer(queue, untraced)
    first, second = await collect(queue.outcomes("run1"), 2)
    assert (first.cohort_id, first.trace) == ("traced", traceparent_of(recorded.one("settle")))
    assert (second.cohort_id, second.trace) == ("untraced", None)


async def test_a_run_that_is_not_traced_sends_no_trace_to_anyone(
    redis: Redis, redis_url: str, config: Build, teacher: tuple[Teacher, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = teacher
    tasks: list[JudgeTask] = []
    submit = CohortQueue.submit_many

    async def submit_many(self: CohortQueue, given: Sequence[JudgeTask]) -> list[bool]:
        tasks.extend(given)
        return await submit(self, given)

    monkeypatch.setattr(CohortQueue, "submit_many", submit_many)
    async with judging(settings(url, redis_url)):
        await run(config(steps=1, staleness={"limit": 0}))
    assert {task.trace for task in tasks} == {None}
    assert set(server.told) == {None}
