"""Rewards and judges for TRL: what TRL's own helpers make of them, and what they answer."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from trl.trainer.utils import get_callable_name, is_async_callable

from preceptor_client.adapters import Scorer
from preceptor_client.adapters.trl import AsyncReward, BinaryJudge, PairwiseJudge, RankJudge, Reward
from preceptor_client.contract import Status
from preceptor_client.testing import FakePreceptor


def by_length(axis: str, prefix: str, text: str) -> float | Status:
    return Status.FAILED if text == "!" else min(1.0, len(text) / 10)


@pytest.fixture
def fake() -> FakePreceptor:
    return FakePreceptor(by_length)


@pytest.fixture
def scorer(fake: FakePreceptor) -> Scorer:
    return Scorer(client=fake.client(), async_client=fake.async_client())


def test_trl_tells_the_two_apart_and_logs_them_under_their_name(scorer: Scorer) -> None:
    assert not is_async_callable(Reward(scorer))
    assert is_async_callable(AsyncReward(scorer))
    assert get_callable_name(Reward(scorer)) == "preceptor"
    assert get_callable_name(AsyncReward(scorer, name="safety")) == "safety"
    assert pickle.loads(pickle.dumps(Reward(scorer))).__name__ == "preceptor"


async def test_rewards_come_in_order_and_none_is_made_up(fake: FakePreceptor, scorer: Scorer) -> None:
    columns: dict[str, Any] = {"reference": ["r", "r", "s"], "completion_ids": [[1], [2], [3]], "trainer_state": None}
    prompts, completions = ["a", "a", "b"], ["four", "!", "sixsix"]
    assert Reward(scorer)(prompts, completions, **columns) == [0.4, None, 0.6]
    assert await AsyncReward(scorer)(prompts=prompts, completions=completions, **columns) == [0.4, None, 0.6]
    assert {(request.cohort.prefix, request.cohort.reference) for request in fake.judged} == {("a", "r"), ("b", "s")}


def test_conversations_are_judged_as_text(fake: FakePreceptor, scorer: Scorer) -> None:
    prompts = [[{"role": "user", "content": "why?"}]] * 2
    completions = [[{"role": "assistant", "content": text}] for text in ("so", "because")]
    assert Reward(scorer, reference="answer")(prompts, completions, answer=[None, None]) == [0.2, 0.7]
    (request,) = fake.judged
    assert request.cohort.prefix == "why?"


def test_axes_and_gaps_reach_the_trainers_log(scorer: Scorer) -> None:
    logged: dict[str, float] = {}
    Reward(scorer)(["a", "a"], ["four", "!"], log_metric=logged.__setitem__)
    assert logged == {"judge/unjudged": 0.5, "judge/quality": 0.4}


def test_a_pairwise_judge_names_the_better_one_or_minus_one(scorer: Scorer) -> None:
    pairs = [["short", "longer one"], ["longer one", "short"], ["equal", "lauqe"], ["fine", "!"]]
    assert PairwiseJudge(scorer).judge(["p"] * 4, pairs) == [1, 0, -1, -1]
    assert PairwiseJudge(scorer).judge(["p"], [["a", "bb"]], shuffle_order=False) == [1]
    with pytest.raises(ValueError, match="exactly 2 per prompt"):
        PairwiseJudge(scorer).judge(["p"], [["a", "b", "c"]])


def test_a_rank_judge_lists_the_places_from_best_to_worst(scorer: Scorer) -> None:
    completions = [["a", "ccc", "bb"], ["bb", "a"], ["a", "!"]]
    assert RankJudge(scorer).judge(["p", "q", "r"], completions) == [[1, 2, 0], [0, 1], [-1, -1]]


def test_a_binary_judge_says_one_or_zero_or_minus_one(fake: FakePreceptor, scorer: Scorer) -> None:
    judge = BinaryJudge(scorer, threshold=0.4)
    assert judge.judge(["p"] * 3, ["four", "two", "!"], ["gold"] * 3) == [1, 0, -1]
    assert {request.cohort.reference for request in fake.judged} == {"gold"}
