from __future__ import annotations

import pytest
import torch

from preceptor_trainer.scoring import head
from preceptor_trainer.scoring.head import token_logps

ROWS = torch.tensor([0, 0, 0, 1, 3, 3, 4])
TARGETS = torch.tensor([2, 2, 5, 10, 0, 3, 4])
"""Row 2 predicts nothing; row 0 predicts the same token twice."""


@pytest.mark.parametrize("rows_at_once", [1, 2, 100], ids="{} rows at once".format)
def test_log_probs_and_gradients_are_those_of_the_whole_softmax(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "CELLS", 11 * rows_at_once)
    torch.manual_seed(0)
    hidden_RH, weight_VH = (torch.randn(size, 6, dtype=torch.float64).requires_grad_() for size in (5, 11))
    logps_M = token_logps(hidden_RH, weight_VH, ROWS, TARGETS)
    expected_M = (hidden_RH @ weight_VH.T).log_softmax(-1)[ROWS, TARGETS]
    torch.testing.assert_close(logps_M, expected_M)
    weights_M = torch.randn(7, dtype=torch.float64)
    got = torch.autograd.grad(logps_M, (hidden_RH, weight_VH), weights_M)
    torch.testing.assert_close(got, torch.autograd.grad(expected_M, (hidden_RH, weight_VH), weights_M))


def test_sums_are_in_float32_where_weights_are_not() -> None:
    hidden_RH = torch.zeros(1, 4, dtype=torch.bfloat16)
    weight_VH = torch.zeros(1000, 4, dtype=torch.bfloat16)
    logps_M = token_logps(hidden_RH, weight_VH, torch.tensor([0]), torch.tensor([7]))
    assert logps_M.dtype == torch.float32
    assert logps_M.item() == pytest.approx(-6.907755, abs=1e-6)
