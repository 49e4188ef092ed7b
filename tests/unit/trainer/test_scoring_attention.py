from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from preceptor_trainer.scoring.flex import block_mask, flex_tree_attention, sees
from preceptor_trainer.scoring.layout import Layout, lay_out
from preceptor_trainer.scoring.tree import Runs, tree_attention

CPU = torch.device("cpu")
LAYOUTS = {
    "equal lengths": ([[1, 2, 3]] * 2 + [[4, 5, 6]] * 2, [[1, 2]] * 4),
    "one token each": ([[1]], [[2]]),
    "unequal lengths": ([[1, 2, 3], [4], [1, 2, 3], [4], [5, 6, 7]], [[1], [2, 3, 4, 5], [6, 7], [8], [9, 1, 2]]),
    "one suffix a prefix": ([[1, 2], [3, 4, 5, 6]], [[7, 8, 9], [1]]),
    "equal suffixes": ([[1, 2]] * 3, [[3, 4]] * 3),
    "longer than a block": ([[1] * 70] * 4 + [[2] * 33], [[3] * 40, [4] * 2, [5] * 40, [6], [7] * 9]),
}


def dense(layout: Layout) -> Tensor:
    """Whether a query (row) sees a key (column), cohort by cohort from the definition."""
    mask_NN = torch.zeros(len(layout.ids), len(layout.ids), dtype=torch.bool)
    prefix, suffix = 0, layout.shared
    for length, suffixes in zip(layout.prefixes, layout.suffixes, strict=True):
        mask_NN[prefix : prefix + length, prefix : prefix + length] = torch.ones(length, length).tril().bool()
        for own in suffixes:
            mask_NN[suffix : suffix + own, prefix : prefix + length] = True
            mask_NN[suffix : suffix + own, suffix : suffix + own] = torch.ones(own, own).tril().bool()
            suffix += own
        prefix += length
    return mask_NN


def inputs(tokens: int, heads: int, key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values, NHD."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(tokens, heads, 32), (tokens, key_heads, 32), (tokens, key_heads, 32)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def truth(query: Tensor, key: Tensor, value: Tensor, mask_NN: Tensor, scale: float) -> Tensor:
    """Attention with the dense mask: `out_NHD`."""
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask_NN, scale=scale, enable_gqa=True)
    return out.transpose(0, 1)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("key_heads", [4, 2], ids=["a key head each", "grouped queries"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
def test_attention_and_its_gradients_are_those_of_the_dense_mask(
    name: str, key_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    layout = lay_out(*LAYOUTS[name])
    given, expected = (inputs(len(layout.ids), 4, key_heads, dtype) for _ in range(2))
    out = tree_attention(given[0], given[1], given[2], Runs.of(layout), 0.3)
    out_expected = truth(expected[0], expected[1], expected[2], dense(layout), 0.3)
    torch.testing.assert_close(out, out_expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn(out.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for loss in ((out * weights).sum(), (out_expected * weights).sum()):
        loss.backward()  # type: ignore[no-untyped-call]
    for mine, its in zip(given, expected, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_mask_for_a_gpu_is_the_dense_mask(name: str) -> None:
    layout = lay_out(*LAYOUTS[name])
    places = torch.arange(len(layout.ids))
    zero = torch.tensor(0)
    assert torch.equal(sees(layout, CPU)(zero, zero, places[:, None], places[None, :]), dense(layout))


@pytest.mark.parametrize("name", ["unequal lengths", "longer than a block"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_what_the_dense_mask_gives(name: str) -> None:
    layout = lay_out(*LAYOUTS[name])
    query, key, value = (part.detach() for part in inputs(len(layout.ids), 4, 2, torch.float32))
    query_1HND, key_1GND, value_1GND = (part.transpose(0, 1)[None] for part in (query, key, value))
    out_1NHD = flex_tree_attention(query_1HND, key_1GND, value_1GND, block_mask(layout, CPU), 0.3)
    torch.testing.assert_close(out_1NHD[0], truth(query, key, value, dense(layout), 0.3), rtol=2e-5, atol=2e-5)
