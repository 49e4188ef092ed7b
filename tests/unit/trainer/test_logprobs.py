from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from preceptor_trainer.logprobs import suffix_logps
from tiny_policy import tiny_gpt2, tiny_llama


def alone(model: Any, prefix: list[int], suffix: list[int]) -> list[float]:
    """The same figures from one unpadded forward pass over everything."""
    with torch.inference_mode():
        logps = model(torch.tensor([prefix + suffix])).logits[0].log_softmax(-1)
    start = len(prefix) - 1
    return [logps[start + t, token].item() for t, token in enumerate(suffix)]


@pytest.mark.parametrize(
    ("prefixes", "suffixes"),
    [
        ([[1, 2, 3], [4, 5, 6]], [[7, 8], [9, 10]]),
        ([[1], [4, 5, 6, 7, 8]], [[7, 8, 9, 10], [9]]),
        ([[1, 2, 3, 4], [5]], [[6], [7, 8, 9]]),
    ],
    ids=["no padding", "long suffix after the short prefix", "long suffix after the long padding"],
)
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2], ids=["relative positions", "absolute positions"])
def test_logps_equal_a_forward_pass_of_each_row_alone(
    build: Callable[[], Any], prefixes: list[list[int]], suffixes: list[list[int]]
) -> None:
    model = build()
    with torch.inference_mode():
        logps_BT, mask_BT = suffix_logps(model, prefixes, suffixes)
    assert mask_BT.sum(-1).tolist() == [len(suffix) for suffix in suffixes]
    for row, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        assert logps_BT[row, : len(suffix)].tolist() == pytest.approx(alone(model, prefix, suffix), abs=1e-5)
        assert logps_BT[row, len(suffix) :].eq(0).all()


def test_masked_positions_have_no_gradient() -> None:
    model = tiny_llama()
    logps_BT, mask_BT = suffix_logps(model, [[1, 2], [3, 4]], [[5, 6, 7], [8]])
    (logps_BT * ~mask_BT).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix"):
        suffix_logps(tiny_llama(), [[], [1]], [[1], [2]])
