"""The asynchronous loop on a real Redis. The judge is a queue worker of its own that scores by a rule, so that the
right outcome is known; the teacher's judging is in test_train_stack.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.contract import JudgeRequest, JudgeResponse, Status, Verdict
from preceptor_client.queue import CohortQueue, Delivery
from preceptor_services.composition import compose
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.run import run
from tiny_policy import save_policy

Rule = Callable[[str], float | Status]
GOOD = {f"w{number}" for number in range(2, 30)}


def share_of_good_words(text: str) -> float:
    words = text.split()
    return sum(word in GOOD for word in words) / len(words)


def answer(request: JudgeRequest, rule: Rule) -> JudgeResponse:
    verdicts = []
    for axis in request.axes:
        for candidate in request.cohort.candidates:
            score = rule(candidate.text)
            ok = not isinstance(score, Status)
            verdicts.append(
                Verdict(
                    candidate_id=candidate.id,
                    axis=axis,
                    status=Status.OK if ok else score,
                    score=score if ok else None,
                    reason=None if ok else "the rule says so",
                )
            )
    scores = {(verdict.candidate_id, verdict.axis): verdict.score for verdict in verdicts if verdict.score is not None}
    assert request.composition is not None
    return JudgeResponse(
        cohort_id=request.cohort.id,
        verdicts=tuple(verdicts),
        axes={},
        composites=compose(request.composition, request.cohort, scores),
        elapsed_s=0.0,
    )


Settle = Callable[[CohortQueue, Delivery], Any]


@asynccontextmanager
async def judge(redis: Redis, settle: Settle) -> AsyncIterator[None]:
    """A worker that passes every task to `settle`."""
    queue = CohortQueue(redis)
    await queue.open_group()

    async def work() -> None:
        while True:
            for delivery in await queue.take("rule", count=4):
                await settle(queue, delivery)

    worker = asyncio.create_task(work())
    try:
        yield
    finally:
        while not worker.done():
            worker.cancel()
            await asyncio.wait([worker], timeout=1)


def by_rule(rule: Rule) -> Settle:
    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        await queue.settle(delivery, answer(delivery.task.request, rule))

    return settle


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Callable[..., TrainConfig]:
    """`config(section={...})`: a run of a tiny policy on random words."""
    save_policy(tmp_path / "policy", scale=0.02)
    documents = tmp_path / "documents.jsonl"
    lines = [{"text": " ".join(f"w{(7 * i + 11 * j) % 58 + 2}" for j in range(24))} for i in range(200)]
    documents.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def build(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "run": "test",
            "out": tmp_path / "out",
            "steps": 6,
            "cohorts_per_step": 4,
            "model": {"path": str(tmp_path / "policy")},
            "data": {"path": str(documents), "prefix_tokens": 8, "suffix_tokens": 6},
            "pool": {"rollouts": 3},
            "judge": {"redis_url": redis_url, "axes": {"quality": 1.0}},
            "optimizer": {"lr": 3e-3, "schedule": "constant"},
        }
        for name, change in changes.items():
            values[name] = {**values[name], **change} if isinstance(values.get(name), dict) else change
        return TrainConfig.model_validate(values)

    return build


def break_last_line(documents: Path) -> None:
    documents.write_text(documents.read_text() + "{broken\n")


def metrics(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]


def total(lines: list[dict[str, Any]], section: str, name: str) -> int:
    return sum(line[section].get(name, 0) for line in lines)


@pytest.mark.parametrize("objective", ["dpo", "grpo", "rf_nll"])
async def test_the_policy_learns_what_the_judge_rewards(
    redis: Redis, config: Callable[..., TrainConfig], objective: str
) -> None:
    settings = config(objective={"name": objective}, steps=30, cohorts_per_step=8)
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    scores = [line["scores"]["quality"]["rollout"] for line in metrics(settings)]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.15


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_every_step_keeps_the_staleness_limit_and_an_asynchronous_run_uses_it(
    redis: Redis, config: Callable[..., TrainConfig], limit: int
) -> None:
    settings = config(staleness={"limit": limit}, steps=10)
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    lines = metrics(settings)
    assert [line["step"] for line in lines] == list(range(1, 11))
    staleness = [line["staleness"]["max"] for line in lines]
    assert max(staleness) <= limit
    assert (max(staleness) > 0) == (limit > 0)


async def test_failed_and_abstained_verdicts_are_counted_and_never_trained_on(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    calls = 0

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            await queue.settle(delivery, answer(delivery.task.request, lambda _: Status.FAILED))
            return
        original = delivery.task.request.cohort.candidates[0].text

        def all_but_the_original(text: str) -> float | Status:
            return Status.ABSTAINED if text == original else share_of_good_words(text)

        await queue.settle(delivery, answer(delivery.task.request, all_but_the_original))

    settings = config(steps=5)
    async with judge(redis, settle):
        await run(settings)
    lines = metrics(settings)
    assert total(lines, "events", "unjudged") >= 5
    assert total(lines, "judge", "failed") == 4 * total(lines, "events", "unjudged")
    assert total(lines, "judge", "abstained") >= 20
    for line in lines:
        assert set(line["chosen"]) == set(line["rejected"]) == {"rollout"}
        assert "original" not in line["scores"]["quality"]


async def test_answers_that_come_late_twice_or_for_nobody_train_no_cohort_twice(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    """A verdict of an earlier run lies in the stream, every answer comes twice, and the first one last."""
    held: list[tuple[CohortQueue, Delivery]] = []

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        if not held:
            held.append((queue, delivery))
            return
        response = answer(delivery.task.request, share_of_good_words)
        await queue.settle(delivery, response)
        await redis.xadd("preceptor:verdicts:test", {"response": response.model_dump_json()})
        if len(held) == 1 and (await queue.status()).waiting == 0:
            held.append(held[0])
            await by_rule(share_of_good_words)(*held[0])

    stranger = JudgeResponse(cohort_id="0000-0-1", verdicts=(), axes={}, elapsed_s=0.0)
    await redis.xadd("preceptor:verdicts:test", {"response": stranger.model_dump_json()})
    settings = config(steps=8)
    async with judge(redis, settle):
        await run(settings)
    lines = metrics(settings)
    assert len(held) == 2
    assert total(lines, "events", "unknown") >= 8
    assert all(line["staleness"]["max"] <= 1 for line in lines)


async def test_ties_are_dropped_counted_and_replaced(redis: Redis, config: Callable[..., TrainConfig]) -> None:
    calls = 0

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal calls
        calls += 1
        tied = calls % 2 == 0
        await queue.settle(delivery, answer(delivery.task.request, (lambda _: 0.5) if tied else share_of_good_words))

    settings = config(steps=5)
    async with judge(redis, settle):
        await run(settings)
    assert len(metrics(settings)) == 5
    assert total(metrics(settings), "events", "tied") >= 10


async def test_a_judge_that_answers_nothing_ends_the_run_with_its_reason(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    settings = config(judge={"give_up_after": 12})
    async with judge(redis, by_rule(lambda _: Status.FAILED)):
        with pytest.raises(TrainError, match=r"12 cohorts in a row .*unjudged \(reason: the rule says so\)"):
            await run(settings)


async def test_documents_that_run_out_end_the_run_with_the_step(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    settings = config(data={"epochs": 1}, steps=100)
    async with judge(redis, by_rule(share_of_good_words)):
        with pytest.raises(TrainError, match=r"ran out after step \d+ of 100"):
            await run(settings)
    assert len(metrics(settings)) > 40


async def test_a_malformed_document_ends_the_run_with_its_line(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    settings = config(steps=100)
    break_last_line(Path(settings.data.path))
    async with judge(redis, by_rule(share_of_good_words)):
        with pytest.raises(TrainError, match=r"documents\.jsonl:201: not JSON"):
            await run(settings)


async def test_responses_are_forgotten_once_a_checkpoint_holds_their_effect(
    redis: Redis, config: Callable[..., TrainConfig]
) -> None:
    settings = config(steps=4, checkpoint={"every": 2, "keep": 1})
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step-00000004"]
    state = load_state(settings.out / "final")
    assert state.step == 4
    assert 0 < len(state.in_flight) <= 8
    assert all(id.startswith(state.session) for id in state.in_flight)
    assert await redis.xlen("preceptor:verdicts:test") <= len(state.in_flight)
