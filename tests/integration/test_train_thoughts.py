"""Thoughts in the real loop, on a real Redis. The judge is a queue worker of its own that scores by a rule; the rest,
with the teacher on vLLM, is the study of thoughts."""

from __future__ import annotations

import json
from pathlib import Path

from redis.asyncio import Redis

from preceptor_client.contract import JudgeRequest
from preceptor_client.queue import CohortQueue, Delivery
from preceptor_trainer.ledger import read_ledger
from preceptor_trainer.run import run
from rule_judge import answer, judge, share_of_good_words
from tiny_run import metrics, tiny_run

OPEN, CLOSE = "w58", "w59"
SUFFIX = 3


def write_documents(path: Path, *, thoughts: bool) -> Path:
    """Two words and three more, half of which the judge likes; between them perhaps a thought of two words."""
    texts = [
        f"w{i % 50 + 2} w4{f' {OPEN} w{i % 30 + 5} w{i % 7 + 9} {CLOSE}' if thoughts else ''} "
        f"w{i % 20 + 5} w{i % 40 + 10} w{i % 50 + 4}"
        for i in range(200)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


async def test_what_follows_a_thought_is_judged_and_a_malformed_one_is_worth_nothing(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    config = tiny_run(tmp_path, redis_url)
    with_thoughts = write_documents(tmp_path / "with.jsonl", thoughts=True)
    without = write_documents(tmp_path / "without.jsonl", thoughts=False)
    data = {"prefix_tokens": 2, "min_prefix_tokens": 2}
    # Learns to write thoughts as text like any other: to this run they are a part of the suffix.
    taught = config(
        out=tmp_path / "taught",
        data={**data, "path": str(with_thoughts), "suffix_tokens": 7},
        pool={"original": True, "rollouts": 0},
        objective={"name": "nll"},
        steps=60,
        cohorts_per_step=16,
    )
    await run(taught)

    asked: list[JudgeRequest] = []

    async def settle(queue: CohortQueue, delivery: Delivery) -> None:
        asked.append(delivery.task.request)
        await queue.settle(delivery, answer(delivery.task.request, share_of_good_words))

    thinking = config(
        model={"path": str(taught.out / "final")},
        data={**data, "path": str(without), "suffix_tokens": SUFFIX},
        thoughts={"open": OPEN, "close": CLOSE, "max_tokens": 5},
        pool={"original": False, "rollouts": 6},
        objective={"name": "grpo", "normalize_std": False},
        steps=25,
        cohorts_per_step=8,
    )
    async with judge(redis, settle):
        await run(thinking)

    texts = [candidate.text.split() for request in asked for candidate in request.cohort.candidates]
    assert max(map(len, texts)) == SUFFIX
    assert not any(word in (OPEN, CLOSE) for text in texts for word in text)
    sent = {request.cohort.id: {candidate.id for candidate in request.cohort.candidates} for request in asked}
    trained = [end for end in read_ledger(thinking.out / "cohorts.jsonl") if end["outcome"] == "trained"]
    malformed = [(end, set(end["scores"]) - sent[end["cohort"]]) for end in trained]
    assert all(end["scores"][id] == 0 for end, ids in malformed for id in ids)
    assert all(len(end["scores"]) == 6 and not end["failed"] for end in trained)
    lines = metrics(thinking)
    counted = [line["events"].get("thought_malformed", 0) for line in lines]
    assert 0 < sum(len(ids) for _, ids in malformed) <= sum(counted)
    assert sum(counted[-8:]) < sum(counted[:8]), "it unlearns what is worth nothing"
    scores = [line["scores"]["quality"]["rollout"] for line in lines]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.1
