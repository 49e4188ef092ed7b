from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.models import ModelSizes, Span, forward_flops, read_sizes

SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT_OSS = ModelSizes(
    name="gpt-oss-120b",
    layers=36,
    hidden=2880,
    heads=64,
    kv_heads=8,
    head_size=64,
    mlp=2880,
    experts=128,
    active_experts=4,
    vocab=201088,
)


@pytest.mark.parametrize("tied", [False, True])
def test_a_models_sizes_are_those_of_its_directory(tmp_path: Path, tied: bool) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path)
    assert read_sizes(tmp_path).parameters == model.num_parameters()


def test_experts_count_all_as_parameters_and_few_as_active(tmp_path: Path) -> None:
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2))
    model.save_pretrained(tmp_path)
    sizes = read_sizes(tmp_path)
    assert sizes.parameters == model.num_parameters()
    assert sizes.parameters - sizes.active_parameters > 2 * sizes.layers * sizes.expert


def test_the_published_sizes_of_large_models_come_out() -> None:
    assert GPT_OSS.parameters == pytest.approx(116.8e9, rel=1e-3)
    assert GPT_OSS.active_parameters == pytest.approx(5.1e9, rel=1e-2)
    llama = ModelSizes(name="8b", layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=128256)
    assert llama.parameters == 8_030_261_248


def test_flops_are_what_torch_counts(tmp_path: Path) -> None:
    """Without a fused attention, whose way back torch counts with what it computes anew; torch counts no mask."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager"))
    model.save_pretrained(tmp_path)
    sizes, length = read_sizes(tmp_path), 20
    with FlopCounterMode(display=False) as forward:
        logits = model(torch.arange(length)[None], logits_to_keep=7).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    counted = sizes.flops(length, length * length, 7)
    assert forward.get_total_flops() == counted
    assert backward.get_total_flops() == 2 * counted


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 12))
def test_a_span_counts_every_pair_of_a_query_and_a_key_it_may_see(count: int, tokens: int, context: int) -> None:
    seen = sum(1 for query in range(context, context + tokens) for key in range(context + tokens) if key <= query)
    assert Span(count, tokens, context).pairs == count * seen


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_sequence_in_two_spans_costs_what_it_costs_in_one(prefix: int, suffix: int) -> None:
    whole = forward_flops(GPT_OSS, [Span(3, prefix + suffix, logits=suffix)])
    parts = forward_flops(GPT_OSS, [Span(3, prefix), Span(3, suffix, prefix, logits=suffix)])
    assert parts == pytest.approx(whole)


def test_a_directory_that_does_not_tell_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="give the sizes"):
        read_sizes(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 3}))
    with pytest.raises(TrainError, match="num_hidden_layers"):
        read_sizes(tmp_path)
