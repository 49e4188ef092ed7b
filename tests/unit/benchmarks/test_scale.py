from __future__ import annotations

import argparse

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import scale
from benchmarks.measuring.result import Table

TINY = argparse.Namespace(
    width=64,
    layers=2,
    vocabulary=50,
    prefix=12,
    suffix=4,
    candidates=3,
    cohorts=2,
    micro_cohorts=1,
    rounds=1,
    compile=False,
    device="cpu",
    precision=None,
)


def test_the_flops_of_rows_are_those_that_torch_counts() -> None:
    """But for attention: torch counts every pair of places, also those that do not see each other."""
    model = scale.llama(TINY)
    length, rows = TINY.prefix + TINY.suffix, TINY.cohorts * TINY.candidates
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(rows, length, dtype=torch.long), logits_to_keep=TINY.suffix)
    products = counter.get_flop_counts()["Global"]
    matrices = sum(count for kind, count in products.items() if "mm" in str(kind) and "bmm" not in str(kind))
    attention = TINY.layers * rows * 4 * TINY.width * length * (length + 1) / 2
    needed = scale.flops(TINY, scale.sizes(model), shared=False)
    assert needed == pytest.approx(scale.FORWARDS * (matrices + attention), rel=1e-6)
    assert scale.flops(TINY, scale.sizes(model), shared=True) < needed


def test_a_tiny_run_has_every_side_and_its_tables() -> None:
    figures = scale.measure(TINY)
    assert [side["side"] for side in figures["sides"]] == ["naive", "shared", "checkpointed"]
    assert all(side["mfu"] > 0 and side["tokens_per_s"] > 0 for side in figures["sides"])
    assert figures["sides"][0]["speedup"] == 1
    assert all(isinstance(table, Table) and table.rows for table in scale.tables(figures))
