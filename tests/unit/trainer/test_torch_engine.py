"""What only the in-process engine promises; what every engine promises is in integration/test_train_engines.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch

from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.rollouts.engine import EngineError
from preceptor_trainer.rollouts.torch_engine import TorchEngine, _choose
from tiny_policy import tiny_gpt2

PREFIXES = [[1, 2, 3, 4], [5], [6, 7]]


async def test_padded_prefixes_keep_their_positions_in_a_model_with_absolute_ones() -> None:
    model = tiny_gpt2()
    sampled = await TorchEngine(model).sample(PREFIXES, k=2, n_tokens=6, seed=1)
    for prefix, of_prefix in zip(PREFIXES, sampled.of_prefix, strict=True):
        for rollout in of_prefix:
            with torch.inference_mode():
                logps_1T, _ = suffix_logps(model, [prefix], [rollout.ids])
            assert logps_1T[0].tolist() == pytest.approx(rollout.logps, abs=1e-4)


async def test_generation_stops_when_every_row_has_ended(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama()
    greedy = await TorchEngine(model).sample([[1, 2]], k=1, n_tokens=4, temperature=0)
    first = greedy.of_prefix[0][0].ids[0]
    stopped = await TorchEngine(model, eos_id=first).sample([[1, 2]], k=2, n_tokens=4, temperature=0)
    assert [rollout.ids for rollout in stopped.of_prefix[0]] == [(first,), (first,)]


async def test_the_event_loop_goes_on_and_a_load_returns_while_a_sample_runs(tiny_llama: Callable[..., Any]) -> None:
    engine = TorchEngine(tiny_llama(0))
    running = asyncio.create_task(engine.sample(PREFIXES, k=64, n_tokens=40, seed=1))
    await asyncio.sleep(0)
    await engine.load(tiny_llama(1), 1)
    assert not running.done()
    assert engine.version == 1
    assert (await running).version == 0
    assert (await engine.sample(PREFIXES, k=1, n_tokens=2, seed=1)).version == 1


async def test_the_snapshot_does_not_follow_the_model_it_was_taken_from(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama()
    engine = TorchEngine(model)
    before = await engine.sample(PREFIXES, k=2, n_tokens=5, temperature=0)
    await engine.load(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    assert (await engine.sample(PREFIXES, k=2, n_tokens=5, temperature=0)).of_prefix == before.of_prefix


@pytest.mark.parametrize("temperature", [0, 1])
async def test_a_policy_whose_probabilities_are_no_numbers_is_told(
    tiny_llama: Callable[..., Any], temperature: float
) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)
    with pytest.raises(EngineError, match=r"lower optimizer\.lr"):
        await TorchEngine(model).sample(PREFIXES, k=2, n_tokens=4, temperature=temperature, seed=1)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, {0}), (0.49, {0}), (0.51, {0, 1}), (0.85, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: set[int]) -> None:
    logps = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(2000, 4)
    generator = torch.Generator().manual_seed(0)
    assert set(_choose(logps, 1.0, top_p, generator).flatten().tolist()) == kept


def test_samples_follow_the_distribution_at_their_temperature() -> None:
    logps = torch.tensor([[0.6, 0.3, 0.1]]).log().expand(20_000, 3)
    for temperature in (1.0, 0.5):
        chosen = _choose(logps, temperature, 1.0, torch.Generator().manual_seed(0)).flatten()
        expected = (logps[0] / temperature).softmax(-1)
        assert (torch.bincount(chosen) / len(chosen)).tolist() == pytest.approx(expected.tolist(), abs=0.015)
