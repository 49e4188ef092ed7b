"""A teacher that thinks, on a real vLLM with a reasoning parser: a made-up model that draws letters for ever, whatever
it is asked. That its thoughts end, and whatever form its answers have, is the doing of vLLM."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from byte_model import CHAT_TEMPLATE, byte_llama, byte_tokenizer
from preceptor_client.stack import Stack, vllm_part
from preceptor_services.engine import Answer, Engine, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings

pytestmark = pytest.mark.slow
THOUGHT_TOKENS = 30
VERDICT = Generation("chat", max_tokens=300, n=2, temperature=1.0, seed=3, labels=("safe", "unsafe"), constraint="json")


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose next token never depends on the ones before."""
    folder = tmp_path_factory.mktemp("thinker")
    tokenizer = byte_tokenizer(CHAT_TEMPLATE + "<think>\n")
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    chances = torch.full((len(tokenizer),), 1e-30)
    chances[tokenizer.convert_tokens_to_ids(list('abcdefgh"'))] = 1.0
    model = byte_llama(tokenizer, positions=2048, tie_word_embeddings=False)
    with torch.no_grad():  # every state is the same: one large number, which the head turns into the chances
        model.model.embed_tokens.weight.zero_()[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()[:, 0] = torch.log(chances) / model.config.hidden_size**0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(stack: Stack, thinker: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    part = vllm_part(
        thinker,
        "thinker",
        tmp_path_factory.mktemp("vllm"),
        name="thinker",
        max_model_len=2048,
        extra=["--reasoning-parser", "deepseek_r1"],
    )
    return stack.start(part).part.url or ""


async def ask(url: str, **settings: Any) -> Answer:
    async with Engine(EngineSettings(urls=(url,), **settings), Metrics()) as engine:
        await engine.prepare([VERDICT])
        deadline = asyncio.get_running_loop().time() + 120
        (answer,), _ = await engine.ask([Prompt("Is it?")], VERDICT, deadline=deadline, max_prompts=1)
    assert answer.error is None
    return answer


async def test_a_thought_is_free_and_ends_in_time_and_only_the_verdict_is_bound(url: str) -> None:
    answer = await ask(url, reasoning="parsed", reasoning_tokens=THOUGHT_TOKENS)
    for text, thought in zip(answer.texts, answer.reasoning, strict=True):
        assert thought
        assert THOUGHT_TOKENS - 2 <= len(thought) <= THOUGHT_TOKENS
        assert json.loads(text)["verdict"] in VERDICT.labels


async def test_a_thought_that_takes_all_the_room_leaves_nothing_to_read(url: str) -> None:
    answer = await ask(url)
    assert answer.texts == ("",) * VERDICT.n
    assert all(answer.cut_off)
    assert all(len(thought or "") == VERDICT.max_tokens for thought in answer.reasoning)
