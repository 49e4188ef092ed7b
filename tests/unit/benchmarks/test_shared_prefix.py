"""What the benchmark computes at a tiny size; no speed."""

from __future__ import annotations

import json
import sys

import pytest
from transformers import LlamaConfig

from benchmarks.shared_prefix_parts.case import Case, flop_ratio

CONFIG = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)


def test_a_single_candidate_has_nothing_to_share() -> None:
    assert flop_ratio(Case(prefix=48, suffix=8, k=1, cohorts=3), CONFIG) == 1


def test_the_limit_is_that_of_tokens_where_attention_and_output_weigh_nothing() -> None:
    config = LlamaConfig(hidden_size=4096, intermediate_size=2**20, num_attention_heads=4, vocab_size=2)
    assert flop_ratio(Case(480, 32, 16, 1), config) == pytest.approx(16 * 512 / (480 + 16 * 32), rel=1e-3)


def test_a_case_has_the_order_of_its_objective() -> None:
    pairs = [sequence.prefix for sequence in Case(5, 3, 2, 2).sequences(64)]
    assert pairs[:2] == pairs[2:]
    assert pairs[0] != pairs[1]
    groups = [sequence.prefix for sequence in Case(5, 3, 3, 2).sequences(64)]
    assert len(set(groups[:3])) == len(set(groups[3:])) == 1
    assert groups[0] != groups[3]


@pytest.mark.slow
def test_all_sides_give_the_same_figures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.shared_prefix import main, tables  # imports TRL, which takes seconds

    sizes = "--prefixes 24 --suffixes 5 --width 128 --layers 1 --vocabulary 64 --rounds 1"
    monkeypatch.setattr(sys, "argv", ["shared-prefix", "--json", *sizes.split()])
    main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [case["objective"] for case in result["cases"]] == ["dpo", "grpo"]
    for case in result["cases"]:
        assert case["max_rel_error"] < 1e-5
        assert case["trl_rel_error"] < 1e-4
        assert case.keys() >= {"speedup_vs_naive", "speedup_vs_trl", "share_of_ideal", "peak_memory_ratio"}
    assert all(len(row) == len(table.columns) for table in tables(result) for row in table.rows)
