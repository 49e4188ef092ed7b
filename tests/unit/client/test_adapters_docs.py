"""The examples of the page on adapters, run against the fake service over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preceptor_client.testing import FakePreceptor

PAGE = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text(encoding="utf-8")


def by_length(axis: str, prefix: str, text: str) -> float:
    return min(1.0, len(text) / 10)


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePreceptor]:
    fake = FakePreceptor(by_length)
    with fake.serve() as url:
        monkeypatch.setenv("PRECEPTOR_JUDGE_URL", url)
        yield fake


def example(name: str) -> dict[str, Any]:
    """What the page's file of that name defines."""
    found = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names


def test_scorers_are_made_as_shown() -> None:
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})


def test_the_judges_for_code_written_for_trl_judges(service: FakePreceptor) -> None:
    example("judges.py")
    assert [len(request.cohort.candidates) for request in service.judged] == [2, 3, 1]
    assert [request.axes for request in service.judged] == [("quality",), ("quality",), ("safety",)]


async def test_the_verl_file() -> None:
    compute_score = example("verl_reward.py")["compute_score"]
    found = await compute_score(
        data_source="d", solution_str="four", ground_truth="4", extra_info={"question": "two and two?"}
    )
    assert found == {"safety": 0.4, "score": 0.4}


def test_the_openrlhf_file() -> None:
    reward_func = example("openrlhf_reward.py")["reward_func"]
    found = reward_func(["why? because<|im_end|>"], ["why? "], [""])
    assert found["rewards"].tolist() == pytest.approx([0.7])


async def test_the_slime_file() -> None:
    names = example("slime_reward.py")
    args = SimpleNamespace(reward_key=None)
    group = [SimpleNamespace(prompt="why?", response=text, label=None) for text in ("so", "because")]
    rewards = await names["custom_rm"](args, group)
    assert rewards == pytest.approx([0.2, 0.7])
    for sample, reward in zip(group, rewards, strict=True):
        sample.get_reward_value = lambda args, reward=reward: reward
    assert names["judged"](args, group)
