"""What the benchmarks of rollouts and weight sync compute; how fast is theirs to say."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import rollouts, weight_sync
from benchmarks.rollouts_parts.policies import NANO, policy
from preceptor_trainer.rollouts.decoding import SharedPrefixes, can_share


def run(module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["bench", "--json", "--no-vllm", *options])
    module.main()
    return json.loads(capsys.readouterr().out)


def test_rollouts_are_measured_beside_generate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(rollouts, monkeypatch, capsys, "--tiny", "--rounds", "1")
    for row in result["rows"]:
        rates = row["tokens_per_s"]
        best = max(rates["generate, dynamic"], rates["generate, static"])
        assert row["over_generate"] == pytest.approx(rates["torch"] / best, rel=1e-2)
    (table,) = rollouts.tables(result)
    assert [len(row) for row in table.rows] == [len(table.columns)] * 2


def test_weight_sync_is_measured_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(weight_sync, monkeypatch, capsys, "--policies", "nano", "--rounds", "1")
    (row,) = result["rows"]
    assert 0 < row["load_s"] <= row["first_token_s"]
    (table,) = weight_sync.tables(result)
    assert [len(row) for row in table.rows] == [len(table.columns)]


@torch.inference_mode()
def test_the_limit_counts_the_products_that_the_sampler_makes() -> None:
    batch, model = rollouts.Batch(2, 10, 4), policy(NANO)
    assert can_share(model) is None
    with FlopCounterMode(display=False) as counted:
        decoder = SharedPrefixes(model, [list(range(batch.prefix))] * batch.prefixes, rollouts.K, batch.new)
        decoder.start()
        for _ in range(batch.new - 1):
            decoder.step(torch.zeros(batch.prefixes * rollouts.K, 1, dtype=torch.long))
    assert rollouts.floating_point_operations(NANO, batch) == pytest.approx(counted.get_total_flops(), rel=0.01)
