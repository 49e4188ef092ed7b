from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.rollouts.decoding import by_length
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from tiny_policy import WORDS, tiny_gpt2, tiny_llama

SIZES = {"vocab_size": len(WORDS), "hidden_size": 64, "max_position_embeddings": 128, "initializer_range": 0.2}


def grouped_llama() -> Any:
    """Four query heads on two heads of keys."""
    torch.manual_seed(1)
    config = LlamaConfig(
        **SIZES, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return LlamaForCausalLM(config).eval()


def windowed_mistral() -> Any:
    """Each token sees three before it."""
    torch.manual_seed(1)
    config = MistralConfig(
        **SIZES,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
    )
    return MistralForCausalLM(config).eval()


def bloom() -> Any:
    """Its attention is its own, with biases for distances instead of positions."""
    torch.manual_seed(1)
    return BloomForCausalLM(
        BloomConfig(vocab_size=len(WORDS), hidden_size=64, n_layer=2, n_head=4, initializer_range=0.2)
    ).eval()


MODELS = [(grouped_llama, True), (tiny_gpt2, True), (windowed_mistral, False), (bloom, False)]


@pytest.mark.parametrize(("make", "shares"), MODELS)
async def test_log_probs_are_those_of_a_plain_forward_pass_whether_or_not_a_model_can_share(
    make: Callable[[], Any], shares: bool
) -> None:
    model, engine = make(), TorchEngine(make(), eos_id=7)
    assert (engine.fallback is None) == shares
    prefixes = [list(range(length)) for length in (9, 1, 3, 40, 9)]
    sampled = await engine.sample(prefixes, k=8, n_tokens=12, seed=1)
    rows = [(prefix, rollout) for prefix, of in zip(prefixes, sampled.of_prefix, strict=True) for rollout in of]
    assert any(len(rollout.ids) < 12 for _, rollout in rows)
    assert any(len(rollout.ids) == 12 for _, rollout in rows)
    for prefix, rollout in rows:
        assert 7 not in rollout.ids[:-1]
        with torch.inference_mode():
            logps_1T, _ = suffix_logps(model, [prefix], [rollout.ids])
        assert logps_1T[0].tolist() == pytest.approx(rollout.logps, abs=1e-4)


async def test_rows_that_have_ended_leave_the_batch() -> None:
    engine = TorchEngine(tiny_llama(scale=0.02), eos_id=7)  # nearly uniform: about a third of the rows never end
    rows: list[int] = []
    engine._model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    sampled = await engine.sample([[1, 2]] * 4, k=16, n_tokens=60, seed=2)
    going_on = [
        sum(len(rollout.ids) > step for of in sampled.of_prefix for rollout in of) for step in range(1, len(rows))
    ]
    assert rows[1] == 64
    assert rows[-1] <= 48
    assert all(in_batch >= left for in_batch, left in zip(rows[1:], going_on, strict=True))


@given(st.lists(st.integers(min_value=1, max_value=4000), min_size=1, max_size=40))
def test_prefixes_are_computed_once_each_beside_others_of_about_their_length(lengths: list[int]) -> None:
    batches = by_length(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert all(longest - lengths[index] <= max(32, longest // 4) for index in batch)
