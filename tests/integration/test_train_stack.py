"""Everything at once on text that nobody here wrote: Python's own language topics, a tokenizer trained on the spot, and
the real services in front of a real vLLM with the nano teacher.

Its verdicts mean little on such text; the way through must hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from redis.asyncio import Redis
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor_client.stack import Stack, rewrite_part, vllm_part, worker_part
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.rollouts.vllm_engine import export_for_vllm
from preceptor_trainer.run import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two vLLM servers start, on a machine that may be busy


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a vocabulary of 1,000, trained on the topics."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(topics.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def load(directory: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            **size,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "topics.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()), encoding="utf-8")
    return file


@pytest.mark.parametrize(("objective", "engine"), [("dpo", "torch"), ("grpo", "vllm")])
async def test_real_text_goes_all_the_way_round(
    objective: str,
    engine: str,
    policy: Path,
    corpus: Path,
    stack: Stack,
    redis: Redis,
    redis_url: str,
    teacher_vllm: Any,
    tmp_path: Path,
) -> None:
    teacher = (teacher_vllm.url, teacher_vllm.model)
    rewriter = stack.start(rewrite_part(tmp_path, *teacher))
    worker = stack.start(worker_part(tmp_path, *teacher, redis_url, overrides=["--queue.namespace=topics"]))
    parts = [rewriter, worker]
    rollouts: dict[str, Any] = {"engine": engine}
    if engine == "vllm":
        start = export_for_vllm(*load(policy), tmp_path / "start")
        parts.append(
            stack.start(vllm_part(start, "policy", tmp_path, name="policy", max_model_len=64, development=True))
        )
        rollouts["vllm"] = {"url": parts[-1].part.url}
    config = TrainConfig.model_validate(
        {
            "run": "topics",
            "out": tmp_path / "out",
            "steps": 4,
            "cohorts_per_step": 4,
            "model": {"path": str(policy)},
            "data": {"path": str(corpus), "prefix_tokens": 24, "suffix_tokens": 12, "shuffle_buffer": 20},
            "pool": {"original": True, "rewrite": True, "rollouts": 3},
            "judge": {"redis_url": redis_url, "namespace": "topics"},
            "rewrite": {"url": rewriter.part.url, "ahead": 8},
            "rollouts": rollouts,
            "objective": {"name": objective},
            "checkpoint": {"every": 2},
        }
    )
    try:
        await run(config)
    finally:
        for part in reversed(parts):
            stack.stop_part(part)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert sum(line["judge"]["calls"] for line in lines) >= 4 * 4 * 5
    assert sum(line["judge"]["tokens"] for line in lines) > 1000
    assert {origin for line in lines for axis in line["scores"].values() for origin in axis} >= {"original", "rollout"}
    events = {name for line in lines for name in line["events"]}
    assert events & {"rewrite_rewritten", "rewrite_unchanged"}
    for directory in (tmp_path / "out" / "final", tmp_path / "out" / "checkpoints" / "step-00000002"):
        model, tokenizer = load(directory)
        assert len(tokenizer) == model.config.vocab_size
    before, after = load(policy)[0], load(tmp_path / "out" / "final")[0]
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
