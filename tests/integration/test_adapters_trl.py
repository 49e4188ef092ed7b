"""A few real steps of TRL's GRPO on a tiny policy, rewarded by the judge service on a real vLLM."""

from __future__ import annotations

import random
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from preceptor_client import ClientSettings
from preceptor_client.adapters import Scorer
from preceptor_client.adapters.trl import AsyncReward, PairwiseJudge, Reward
from preceptor_client.contract import Status
from preceptor_client.stack import Stack, judge_part
from preceptor_client.testing import FakePreceptor, score_by_hash
from preceptor_trainer.nano.text import CLEAN, Rates, continuation, document, text
from preceptor_trainer.nano.world import World
from tiny_policy import nano_policy

if TYPE_CHECKING:
    from conftest import TeacherServer

DOCS = Path(__file__).parents[2] / "docs" / "adapters.md"
GROUP, STEPS, PREFIX = 4, 2, 16


class Recording(Reward):
    """Keeps what it hands to TRL."""

    def __init__(self, scorer: Scorer, **options: Any) -> None:
        super().__init__(scorer, **options)
        self.rewards: list[list[float | None]] = []

    def __call__(self, *texts: Any, **columns: Any) -> list[float | None]:
        self.rewards.append(super().__call__(*texts, **columns))
        return self.rewards[-1]


def windows(count: int) -> Dataset:
    """Prompts from the nano world, each with the words that follow it."""
    rng, world = random.Random(3), World.generate()
    documents = [document(world, rng, CLEAN, sentences=8) for _ in range(count)]
    return Dataset.from_dict(
        {
            "prompt": [text(doc[:PREFIX]) for doc in documents],
            "reference": [text(doc[PREFIX : PREFIX + 8]) for doc in documents],
        }
    )


def policy() -> tuple[Any, Any]:
    """A model with random weights, and its tokenizer."""
    model, tokenizer = nano_policy()
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def train(directory: Path, *rewards: Any) -> list[dict[str, float]]:
    """The log of a few steps."""
    model, tokenizer = policy()
    trainer = GRPOTrainer(
        model,
        reward_funcs=list(rewards),
        args=GRPOConfig(
            output_dir=str(directory),
            max_steps=STEPS,
            per_device_train_batch_size=2 * GROUP,
            num_generations=GROUP,
            max_completion_length=8,
            logging_steps=1,
            learning_rate=1e-3,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            gradient_checkpointing=False,
        ),
        train_dataset=windows(8),
        processing_class=tokenizer,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def mean(rewards: list[float | None]) -> float:
    return statistics.mean(reward for reward in rewards if reward is not None)


def test_completions_without_a_verdict_are_left_out_by_trl(tmp_path: Path) -> None:
    def some(axis: str, prefix: str, completion: str) -> float | Status:
        score = score_by_hash(axis, prefix, completion)
        return Status.ABSTAINED if score < 0.4 else score

    reward = Recording(Scorer(client=FakePreceptor(some).client()))
    entries = train(tmp_path, reward)
    assert None in reward.rewards[0] + reward.rewards[1]
    assert [entry["reward"] for entry in entries] == pytest.approx([mean(each) for each in reward.rewards])
    assert [entry["judge/unjudged"] for entry in entries] == [each.count(None) / len(each) for each in reward.rewards]


def test_the_trainer_of_the_docs_is_accepted_by_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"```python\n# train_grpo.py\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    for part in policy():
        part.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": str(tmp_path / "model"), "dataset": windows(8)}
    exec(found[1].replace("GRPOConfig(output_dir", "GRPOConfig(use_cpu=True, bf16=False, output_dir"), names)
    assert names["trainer"].reward_func_names == ["preceptor", "factuality"]


@pytest.fixture(scope="module")
def settings(stack: Stack, teacher_vllm: TeacherServer, tmp_path_factory: pytest.TempPathFactory) -> ClientSettings:
    part = judge_part(tmp_path_factory.mktemp("judge"), teacher_vllm.url, teacher_vllm.model)
    url = stack.start(part).part.url
    assert url is not None
    return ClientSettings(judge_url=url)


@pytest.mark.slow
def test_grpo_learns_from_the_judges_verdicts(tmp_path: Path, settings: ClientSettings) -> None:
    reward = Recording(Scorer({"quality": 1, "safety": 1}, settings=settings), name="judge")
    entries = train(tmp_path, reward, AsyncReward(Scorer("factuality", settings=settings), name="factuality"))
    assert len(entries) == len(reward.rewards) == STEPS
    assert None not in reward.rewards[0] + reward.rewards[1]
    assert [entry["rewards/judge/mean"] for entry in entries] == pytest.approx([mean(each) for each in reward.rewards])
    for entry in entries:
        assert entry["judge/unjudged"] == 0.0
        assert 0.0 <= entry["rewards/factuality/mean"] <= 1.0
        assert entry["judge/quality"] == pytest.approx(0.5), "win rates of whole cohorts"
        assert entry["rewards/judge/std"] > 0.0
        assert entry["grad_norm"] > 0.0


@pytest.mark.slow
def test_the_pairwise_judge_prefers_clean_text(settings: ClientSettings) -> None:
    rng, world, prompts, pairs = random.Random(5), World.generate(), [], []
    for _ in range(24):
        doc = document(world, rng, CLEAN, sentences=12)
        clean, garbled = (continuation(world, doc, 24, rng, rates, 16) for rates in (CLEAN, Rates(garbled=1.0)))
        prompts.append(text(doc[:24]))
        pairs.append([text(garbled), text(clean)])
    found = PairwiseJudge(Scorer(settings=settings)).judge(prompts, pairs)
    assert found.count(1) / len(found) >= 0.8
    assert set(found) <= {-1, 0, 1}
