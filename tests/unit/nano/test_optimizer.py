from __future__ import annotations

import pytest
import torch
from torch import nn

from preceptor_trainer.nano.optimizer import NanoOptimizer, orthogonalize


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (16, 128)])
def test_orthogonalize_keeps_the_singular_vectors_and_makes_the_values_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalize(matrix[None])[0]
    assert result.shape == matrix.shape
    values = u.T @ result @ vh.T
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all()
    assert (values - values.diagonal().diag()).abs().max() < 1e-4
    assert torch.allclose(orthogonalize(1000 * matrix[None])[0], result, atol=1e-4), "a matrix's size does not matter"


def test_orthogonalize_leaves_a_gradient_of_zero_alone() -> None:
    assert orthogonalize(torch.zeros(2, 4, 6)).equal(torch.zeros(2, 4, 6))


def test_orthogonalize_treats_each_matrix_of_a_stack_by_itself() -> None:
    stack = torch.randn((3, 16, 8), generator=torch.Generator().manual_seed(0))
    alone = torch.cat([orthogonalize(matrix[None]) for matrix in stack])
    assert torch.allclose(orthogonalize(stack), alone, atol=1e-5)


def test_the_loss_of_a_small_model_falls_and_its_heads_learn_too() -> None:
    torch.manual_seed(0)
    model, head = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 16)), nn.Linear(16, 4)
    inputs = torch.randn(64, 8)
    targets = torch.sin(inputs @ torch.randn(8, 4))
    started = [parameter.clone() for parameter in (*model.parameters(), *head.parameters())]
    updates = NanoOptimizer(model, [head], steps=200, matrix_lr=0.02, other_lr=0.01)
    losses = []
    for _ in range(200):
        loss = (head(model(inputs)) - targets).square().mean()
        losses.append(loss.item())
        updates.step(loss)
    assert losses[-1] < 0.2 * losses[0]
    for before, after in zip(started, (*model.parameters(), *head.parameters()), strict=True):
        assert not torch.equal(before, after)
        assert after.grad is None, "gradients of one step must not leak into the next"


def test_the_last_steps_are_small() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    updates = NanoOptimizer(model, steps=100, matrix_lr=0.02, other_lr=0.01)
    moved = []
    for _ in range(100):
        before = model.weight.detach().clone()
        updates.step(model(torch.randn(4, 8)).square().mean())
        moved.append((model.weight.detach() - before).norm().item())
    assert moved[0] < 0.1 * max(moved), "the first steps warm up"
    assert moved[-1] < 0.1 * max(moved)
