"""The asynchronous loop on a real Redis. The judge is a queue worker of its own that scores by a rule, so that the
right outcome is known; the teacher's judging is in test_train_stack.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from preceptor_client.board import BoardReader
from preceptor_client.contract import JudgeResponse, RunState, Status
from preceptor_client.queue import CohortQueue, Delivery, QueueOperations
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.errors import TrainError
from preceptor_trainer.ledger import read_ledger
from preceptor_trainer.run import run
from rule_judge import answer, by_rule, judge, share_of_good_words
from tiny_run import Build, metrics, tiny_run


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Build:
    return tiny_run(tmp_path, redis_url)


def break_last_line(documents: Path) -> None:
    documents.write_text(documents.read_text() + "{broken\n")


def total(lines: list[dict[str, Any]], section: str, name: str) -> int:
    return sum(line[section].get(name, 0) for line in lines)


@pytest.mark.parametrize("objective", ["dpo", "grpo", "rf_nll"])
async def test_the_policy_learns_what_the_judge_rewards(redis: Redis, config: Build, objective: str) -> None:
    settings = config(objective={"name": objective}, steps=30, cohorts_per_step=8)
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    scores = [line["scores"]["quality"]["rollout"] for line in metrics(settings)]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.15


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_every_step_keeps_the_staleness_limit_and_an_asynchronous_run_uses_it(
    redis: Redis, config: Build, limit: int
) -> None:
    settings = config(staleness={"limit": limit}, steps=10)
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    lines = metrics(settings)
    assert [line["step"] for line in lines] == list(range(1, 11))
    staleness = [line["staleness"]["max"] for line in lines]
    assert max(staleness) <= limit
    assert (max(staleness) > 0) == (limit > 0)


async def test_a_run_shows_its_steps_and_its_cohorts_on_the_board(redis: Redis, config: Build) -> None:
    settings, in_detail = config(steps=3, board={"every": 2}), dict[str, bool]()

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        in_detail[delivery.task.request.cohort.id] = delivery.task.request.detail
        await queue.settle(delivery, answer(delivery.task.request, share_of_good_words))

    async with judge(redis, settle):
        await run(settings)
    reader = BoardReader(redis, namespace="preceptor")
    (info,) = await reader.runs()
    assert (info.name, info.step, info.state) == ("test", 3, RunState.FINISHED)
    assert list((await reader.rows(info.run)).rows) == metrics(settings)
    shown = {each.cohort.id: each for each in (await reader.cohorts(info.run)).cohorts}
    ended = {end["cohort"]: end for end in read_ledger(settings.out / "cohorts.jsonl") if in_detail[end["cohort"]]}
    assert shown.keys() == ended.keys()
    assert 0 < len(shown) < len(in_detail)
    for id, end in ended.items():
        assert (shown[id].chosen, shown[id].scores, shown[id].step) == (end["chosen"], end["scores"], end["step"])
        assert shown[id].response is not None


async def test_failed_and_abstained_verdicts_are_counted_and_never_trained_on(redis: Redis, config: Build) -> None:
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


async def test_answers_that_come_late_twice_or_for_nobody_train_no_cohort_twice(redis: Redis, config: Build) -> None:
    """A verdict for nobody lies in the stream, every answer comes twice, and the first one last."""
    held: list[tuple[CohortQueue, Delivery]] = []

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        verdicts = f"preceptor:verdicts:{delivery.task.run}"
        if not held:
            stranger = JudgeResponse(cohort_id="9-9", verdicts=(), axes={}, elapsed_s=0.0)
            await redis.xadd(verdicts, {"cohort": "9-9", "response": stranger.model_dump_json()})
            held.append((queue, delivery))
            return
        response = answer(delivery.task.request, share_of_good_words)
        await queue.settle(delivery, response)
        await redis.xadd(verdicts, {"cohort": response.cohort_id, "response": response.model_dump_json()})
        if len(held) == 1 and await redis.xlen("preceptor:cohorts") == 1:
            held.append(held[0])
            await by_rule(share_of_good_words)(*held[0])

    settings = config(steps=8)
    async with judge(redis, settle):
        await run(settings)
    lines = metrics(settings)
    assert len(held) == 2
    assert total(lines, "events", "unknown") >= 8
    assert all(line["staleness"]["max"] <= 1 for line in lines)
    ends = read_ledger(settings.out / "cohorts.jsonl")
    assert len({end["cohort"] for end in ends}) == len(ends)
    assert sum(end["outcome"] == "trained" for end in ends) == 32


async def test_ties_are_dropped_counted_and_replaced(redis: Redis, config: Build) -> None:
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


async def test_pairs_by_origin_are_trained_on_without_a_judge(config: Build) -> None:
    settings = config(objective={"name": "dpo", "prefer": ["original", "rollout"]}, judge={"redis_url": "redis://no:1"})
    await run(settings)
    for line in metrics(settings):
        assert (line["chosen"], line["rejected"]) == ({"original": 4}, {"rollout": 4})
        assert line["judge"]["calls"] == 0
    margins = [line["margin"] for line in metrics(settings)]
    assert margins[-1] > margins[0]


async def test_a_policy_is_trained_on_its_own_rollouts_without_a_judge(config: Build) -> None:
    settings = config(
        objective={"name": "nll", "target": "rollout"}, pool={"original": False, "rollouts": 1}, staleness={"limit": 0}
    )
    await run(settings)
    assert [line["cohorts"] for line in metrics(settings)] == [4] * 6
    assert {end["outcome"] for end in read_ledger(settings.out / "cohorts.jsonl")} == {"trained"}


async def test_a_controller_adds_rollouts_and_a_checkpoint_knows_how_many(redis: Redis, config: Build) -> None:
    settings = config(pool={"controller": {"share": 0.0, "window": 8}}, staleness={"limit": 0}, checkpoint={"every": 3})
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    trained = [end for end in read_ledger(settings.out / "cohorts.jsonl") if end["outcome"] == "trained"]
    by_step = {end["step"]: len(end["scores"]) for end in trained}
    assert [by_step[step] for step in range(1, 7)] == [2, 2, 3, 3, 4, 4], "the original, and 1 to 3 rollouts"
    kept = load_state(settings.out / "checkpoints" / "step-00000003").growth
    assert kept
    assert (kept.rollouts, kept.cohorts) == (2, 4)


async def test_a_judge_that_answers_nothing_ends_the_run_with_its_reason(redis: Redis, config: Build) -> None:
    settings = config(judge={"give_up_after": 12})
    async with judge(redis, by_rule(lambda _: Status.FAILED)):
        with pytest.raises(TrainError, match=r"12 cohorts in a row .*unjudged \(reason: the rule says so\)"):
            await run(settings)


async def test_documents_that_run_out_end_the_run_with_the_step(redis: Redis, config: Build) -> None:
    settings = config(data={"epochs": 1}, steps=100)
    async with judge(redis, by_rule(share_of_good_words)):
        with pytest.raises(TrainError, match=r"ran out after step \d+ of 100"):
            await run(settings)
    assert len(metrics(settings)) > 40


async def test_a_malformed_document_ends_the_run_with_its_line(redis: Redis, config: Build) -> None:
    settings = config(steps=100)
    break_last_line(Path(settings.data.path))
    async with judge(redis, by_rule(share_of_good_words)):
        with pytest.raises(TrainError, match=r"documents\.jsonl:201: not JSON"):
            await run(settings)


async def test_a_run_that_has_ended_leaves_nothing_in_redis_and_nothing_issued_that_did_not_end(
    redis: Redis, config: Build
) -> None:
    settings = config(steps=4, checkpoint={"every": 2, "keep": 1}, staleness={"limit": 2})
    async with judge(redis, by_rule(share_of_good_words)):
        await run(settings)
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step-00000004"]
    state = load_state(settings.out / "final")
    assert (state.step, state.in_flight) == (4, [])
    status = await QueueOperations(redis).status()
    assert (status.waiting, status.in_flight, status.dead) == (0, 0, 0)
    assert not any(each.answered for each in status.runs.values())


async def test_a_cohort_that_goes_to_the_dead_letters_is_dropped_counted_and_replaced(
    redis: Redis, config: Build
) -> None:
    calls = 0

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            await queue.bury(delivery, "no teacher could judge it")
        else:
            await by_rule(share_of_good_words)(queue, delivery)

    settings = config(steps=5)
    async with judge(redis, settle):
        await run(settings)
    dropped = [end for end in read_ledger(settings.out / "cohorts.jsonl") if end["outcome"] == "dead"]
    assert len(dropped) == total(metrics(settings), "events", "dead") >= 5
    assert {end["reason"] for end in dropped} == {"no teacher could judge it"}
    assert (await QueueOperations(redis).status()).dead == len(dropped)


async def test_a_redis_that_forgot_everything_is_told_again(redis: Redis, config: Build) -> None:
    emptied = False

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal emptied
        if emptied:
            await by_rule(share_of_good_words)(queue, delivery)
        elif await redis.xlen("preceptor:cohorts") == 8:
            emptied = True
            await redis.flushall()
            await queue.open_group()

    settings = config(steps=4)
    async with judge(redis, settle):
        await run(settings)
    assert total(metrics(settings), "events", "resubmitted") >= 8
    assert len(metrics(settings)) == 4


async def test_with_drop_no_step_waits_for_a_late_verdict_and_what_is_too_old_is_made_up_for(
    redis: Redis, config: Build
) -> None:
    """Every fifth of the first cohorts is never answered. At the end there is nothing to make up for one with."""
    calls = 0

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal calls
        calls += 1
        if calls % 5 or calls > 30:
            await by_rule(share_of_good_words)(queue, delivery)

    settings = config(steps=10, staleness={"limit": 2, "policy": "drop"})
    async with judge(redis, settle):
        await run(settings)
    lines = metrics(settings)
    assert max(line["staleness"]["max"] for line in lines) <= 2
    ends = read_ledger(settings.out / "cohorts.jsonl")
    stale = [end for end in ends if end["outcome"] == "stale"]
    assert len(stale) >= total(lines, "events", "stale") > 0
    assert len([end for end in ends if end["outcome"] == "trained"]) == 40
    assert not any(each.waiting + each.in_flight for each in (await QueueOperations(redis).status()).runs.values())


async def test_a_learner_that_waits_says_for_which_part(
    redis: Redis, config: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("preceptor_trainer.loop._STALL_S", 0.2)
    held: list[tuple[CohortQueue, Delivery]] = []
    said = ""

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        nonlocal said
        held.append((queue, delivery))
        if len(held) < 4:
            return
        while "waiting for judges" not in said:
            said += capfd.readouterr().err
            await asyncio.sleep(0.05)
        while held:
            await by_rule(share_of_good_words)(*held.pop())

    settings = config(steps=1, staleness={"limit": 0})
    async with judge(redis, settle):
        await run(settings)
    assert "test: waiting for judges: 4 cohorts are out" in said
    assert "4 at 1 workers" in said
    assert metrics(settings)[0]["stalled"]["judges"] >= 0.2
