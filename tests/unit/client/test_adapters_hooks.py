"""The reward hooks of verl, OpenRLHF and slime, called as the framework calls them."""

from __future__ import annotations

import asyncio
import inspect
import math
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preceptor_client.adapters import Scorer, UnjudgedError, openrlhf, slime, verl
from preceptor_client.contract import Status
from preceptor_client.testing import FakePreceptor


def by_length(axis: str, prefix: str, text: str) -> float | Status:
    return Status.ABSTAINED if text == "?" else min(1.0, len(text) / 10)


@pytest.fixture
def fake() -> FakePreceptor:
    return FakePreceptor(by_length)


@pytest.fixture
def scorer(fake: FakePreceptor) -> Scorer:
    return Scorer("safety", client=fake.client(), async_client=fake.async_client())


def one(solution: str, **extra_info: Any) -> dict[str, Any]:
    """The keywords with which verl's reward managers call, and what they add to `extra_info`."""
    added: dict[str, Any] = {"num_turns": None, "rollout_reward_scores": {}}
    return {
        "data_source": "openai/gsm8k",
        "solution_str": solution,
        "ground_truth": "42",
        "extra_info": {**extra_info, **added},
    }


async def test_verl_gets_a_dict_from_both_kinds_of_function(fake: FakePreceptor, scorer: Scorer) -> None:
    plain, awaited = verl.reward(scorer), verl.async_reward(scorer)
    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(awaited), "verl asks this to decide whether to await"
    assert plain(**one("four", question="why?")) == {"score": 0.4, "safety": 0.4}
    router = {"reward_router_address": None, "reward_model_tokenizer": None}
    assert await partial(awaited, **router)(**one("four", question="why?")) == {"score": 0.4, "safety": 0.4}
    assert {(r.cohort.prefix, r.cohort.reference) for r in fake.judged} == {("why?", "42")}


def test_verls_batch_manager_gets_a_score_per_solution(fake: FakePreceptor, scorer: Scorer) -> None:
    scores = verl.batch_reward(scorer, prompt="prompt")(
        data_sources=["d"] * 3,
        solution_strs=["one", "three", "2"],
        ground_truths=[None] * 3,
        extra_infos=[{"prompt": [{"role": "user", "content": text}]} for text in ("a", "a", "b")],
    )
    assert [each["score"] for each in scores] == [0.3, 0.5, 0.1]
    assert sorted(len(request.cohort.candidates) for request in fake.judged) == [1, 2]


def test_verl_without_a_prompt_says_what_to_change(scorer: Scorer) -> None:
    with pytest.raises(KeyError, match="extra_info has no 'question', only index"):
        verl.reward(scorer)("d", "text", "42", {"index": 3})


async def test_an_unjudged_text_is_an_error_for_verl_and_never_a_score(scorer: Scorer) -> None:
    """Its v1 trainer leaves out a trajectory whose reward raises; its filter of groups would keep a NaN."""
    with pytest.raises(UnjudgedError, match="none is made up: safety abstained"):
        verl.reward(scorer)(**one("?", question="why?"))
    with pytest.raises(UnjudgedError):
        verl.batch_reward(scorer)(
            data_sources=["d"], solution_strs=["?"], ground_truths=["4"], extra_infos=[{"question": "why?"}]
        )
    with pytest.raises(UnjudgedError):
        await verl.async_reward(scorer)(**one("?", question="why?"))


def test_openrlhf_gets_tensors(fake: FakePreceptor, scorer: Scorer) -> None:
    reward_func = openrlhf.reward(scorer, torch.tensor, end_tokens=("<|im_end|>",))
    found = reward_func(["<s>why? because<|im_end|>", "how? so"], ["why? ", "how? "], ["", "by hand"])
    assert found.keys() == {"rewards", "scores", "extra_logs"}
    assert torch.equal(found["rewards"], torch.tensor([0.7, 0.2]))
    assert torch.equal(found["scores"], found["rewards"])
    assert torch.equal(found["extra_logs"]["safety"], found["rewards"])
    assert [request.cohort.reference for request in fake.judged] == [None, "by hand"]


async def test_openrlhf_may_call_from_many_threads(scorer: Scorer) -> None:
    reward_func = openrlhf.reward(scorer, torch.tensor)
    texts = ["x" * length for length in range(10)]
    calls = (asyncio.to_thread(reward_func, ["p " + text], ["p "], [""]) for text in texts)
    assert [round(found["rewards"].item(), 1) for found in await asyncio.gather(*calls)] == [i / 10 for i in range(10)]


def test_openrlhfs_filter_of_groups_drops_what_is_nan(scorer: Scorer) -> None:
    reward_func = openrlhf.reward(scorer, torch.tensor, unjudged="nan")
    scores = [reward_func([query], ["p "], [""])["scores"][0].item() for query in ("p fine", "p ?")]
    assert not 0.0 < sum(scores) / len(scores) < 1.0, "the comparison by which OpenRLHF keeps a group"
    assert math.isnan(reward_func(["p ?"], ["p "], [""])["extra_logs"]["safety"].item())
    with pytest.raises(UnjudgedError):
        openrlhf.reward(scorer, torch.tensor)(["p ?"], ["p "], [""])


def test_openrlhf_with_a_cut_prompt_says_so(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="does not hold its prompt, which begins 'why"):
        openrlhf.reward(scorer, torch.tensor)(["y? because"], ["why? "], [""])


@dataclass
class Sample:
    """The fields of slime's `Sample` that a reward function reads."""

    prompt: Any
    response: str
    label: str | None = None
    reward: Any = None

    def get_reward_value(self, args: Any) -> float:
        value = self.reward if not args.reward_key else self.reward[args.reward_key]
        return float(value)


ARGS = SimpleNamespace(reward_key=None)


async def test_slime_gets_a_reward_per_sample_or_a_list_per_group(fake: FakePreceptor, scorer: Scorer) -> None:
    custom_rm = slime.reward(scorer)
    assert await custom_rm(ARGS, Sample("why?", "because", "42")) == 0.7
    group = [Sample([{"role": "user", "content": "why?"}], text) for text in ("so", "thus")]
    assert await custom_rm(ARGS, group) == [0.2, 0.4]
    assert [len(request.cohort.candidates) for request in fake.judged] == [1, 2]
    keyed = SimpleNamespace(reward_key="score")
    assert await custom_rm(keyed, group[0]) == {"score": 0.2, "safety": 0.2}


async def test_slimes_filter_drops_groups_with_an_unjudged_sample(scorer: Scorer) -> None:
    with pytest.raises(UnjudgedError):
        await slime.reward(scorer)(ARGS, Sample("why?", "?"))
    custom_rm = slime.reward(scorer, unjudged="nan")
    groups = [[Sample("why?", "so"), Sample("why?", text)] for text in ("thus", "?")]
    for args in (ARGS, SimpleNamespace(reward_key="score")):
        for group in groups:
            for sample, reward in zip(group, await custom_rm(args, group), strict=True):
                sample.reward = reward
        assert [slime.judged(args, group) for group in groups] == [True, False]
