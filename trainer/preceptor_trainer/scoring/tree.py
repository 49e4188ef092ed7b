"""Attention over a row of cohorts on a CPU, without a mask.

    prefixes  causally to themselves                               cohorts with equal lengths in one call
    suffixes  to their whole prefix, all of a cohort at once  (a)
              causally to themselves, all suffixes at once    (b)  a and b weighted by their shares of the sum of exp

In: queries, keys and values of N tokens, and the row's `Runs`. Out: what attention with the dense mask gives, up to
rounding. Guarantees: exact gradients, since the kernel's own way back, given the merged output and the merged
logarithm of the sum, yields those of each part; work in proportion to the pairs that may see each other; as
deterministic as the kernel. Fewer heads of keys than of queries are as they are in grouped-query attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from preceptor_trainer.scoring.layout import Layout

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Rectangle:
    """Runs of tokens that lie side by side, as rows of one width; shorter runs have zeros on their right.

    `cells_N` is None where no run is shorter.
    """

    rows: int
    width: int
    cells_N: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Rectangle:
        """Runs of these lengths, one after the other."""
        rows, width = len(lengths), max(lengths)
        if min(lengths) == width:
            return cls(rows, width, None)
        lengths_R = torch.tensor(lengths)
        shift_R = torch.arange(rows) * width - (lengths_R.cumsum(0) - lengths_R)
        return cls(rows, width, torch.arange(sum(lengths)) + shift_R.repeat_interleave(lengths_R))

    def fold(self, runs_NHX: Tensor) -> Tensor:
        """`RHWX`, as the kernel takes it."""
        if self.cells_N is not None:
            filled = runs_NHX.new_zeros(self.rows * self.width, *runs_NHX.shape[1:])
            runs_NHX = filled.index_copy_(0, self.cells_N, runs_NHX)
        return runs_NHX.reshape(self.rows, self.width, *runs_NHX.shape[1:]).transpose(1, 2)

    def unfold(self, rectangle_RHWX: Tensor) -> Tensor:
        """The runs again: `NHX`."""
        runs_NHX = rectangle_RHWX.transpose(1, 2).flatten(0, 1)
        return runs_NHX if self.cells_N is None else runs_NHX.index_select(0, self.cells_N)


@dataclass(frozen=True)
class Group:
    """Cohorts whose prefixes have one length: where these lie, where their suffixes lie, and both as rectangles, a row
    a cohort.
    """

    prefix: slice
    suffix: slice
    prefixes: Rectangle
    suffixes: Rectangle


@dataclass(frozen=True)
class Runs:
    """A row of cohorts as the kernel is to see it."""

    groups: list[Group]
    suffix: slice
    suffixes: Rectangle

    @classmethod
    def of(cls, layout: Layout) -> Runs:
        groups, prefix, first = [], 0, layout.shared
        suffix = first
        cohorts = zip(layout.prefixes, layout.suffixes, strict=True)
        for _, members in groupby(cohorts, key=lambda cohort: cohort[0]):
            lengths, own = zip(*((length, sum(suffixes)) for length, suffixes in members), strict=True)
            ends = prefix + sum(lengths), suffix + sum(own)
            groups.append(
                Group(slice(prefix, ends[0]), slice(suffix, ends[1]), Rectangle.of(lengths), Rectangle.of(own))
            )
            prefix, suffix = ends
        return cls(groups, slice(first, suffix), Rectangle.of([length for own in layout.suffixes for length in own]))


def tree_attention(query_NHD: Tensor, key_NGD: Tensor, value_NGD: Tensor, runs: Runs, scale: float) -> Tensor:
    """`out_NHD`. Computed in float32 or wider: the kernel's way back is far slower in anything narrower."""
    dtype = torch.promote_types(value_NGD.dtype, torch.float32)
    inputs = [tensor.to(dtype) for tensor in (query_NHD, key_NGD, value_NGD)]
    out_NHD: Tensor = _TreeAttention.apply(*inputs, runs, scale)  # type: ignore[no-untyped-call]
    return out_NHD.to(value_NGD.dtype)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, runs: Runs, scale: float) -> Tensor:
        out_NHD = query.new_empty(query.shape)
        sums_NH1 = query.new_empty(*query.shape[:-1], 1)

        def attend(
            queries: slice, rows: Rectangle, keys: slice, seen: Rectangle, causal: bool
        ) -> tuple[Tensor, Tensor]:
            out, sums = _flash(
                rows.fold(query[queries]), seen.fold(key[keys]), seen.fold(value[keys]), 0.0, causal, scale=scale
            )
            return rows.unfold(out), rows.unfold(sums[..., None])

        own, own_sums = attend(runs.suffix, runs.suffixes, runs.suffix, runs.suffixes, True)
        for group in runs.groups:
            out, sums = attend(group.prefix, group.prefixes, group.prefix, group.prefixes, True)
            out_NHD[group.prefix], sums_NH1[group.prefix] = out, sums
            out, sums = attend(group.suffix, group.suffixes, group.prefix, group.prefixes, False)
            part = slice(group.suffix.start - runs.suffix.start, group.suffix.stop - runs.suffix.start)
            torch.lerp(own[part], out, (sums - own_sums[part]).sigmoid(), out=out_NHD[group.suffix])
            torch.logaddexp(own_sums[part], sums, out=sums_NH1[group.suffix])
        ctx.save_for_backward(query, key, value, out_NHD, sums_NH1)
        ctx.runs, ctx.scale = runs, scale
        return out_NHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out_NHD, sums_NH1 = ctx.saved_tensors
        runs: Runs = ctx.runs
        grads = [torch.empty_like(tensor) for tensor in (query, key, value)]

        def way_back(queries: slice, rows: Rectangle, keys: slice, seen: Rectangle, causal: bool) -> list[Tensor]:
            parts = _flash_backward(
                rows.fold(grad_out[queries]),
                rows.fold(query[queries]),
                seen.fold(key[keys]),
                seen.fold(value[keys]),
                rows.fold(out_NHD[queries]),
                rows.fold(sums_NH1[queries])[..., 0],
                0.0,
                causal,
                scale=ctx.scale,
            )
            return [rows.unfold(parts[0]), seen.unfold(parts[1]), seen.unfold(parts[2])]

        own = way_back(runs.suffix, runs.suffixes, runs.suffix, runs.suffixes, True)
        for grad, part in zip(grads, own, strict=True):
            grad[runs.suffix] = part
        for group in runs.groups:
            prefix = way_back(group.prefix, group.prefixes, group.prefix, group.prefixes, True)
            across = way_back(group.suffix, group.suffixes, group.prefix, group.prefixes, False)
            grads[0][group.prefix] = prefix[0]
            grads[0][group.suffix] += across[0]
            for grad, of_prefix, of_suffixes in zip(grads[1:], prefix[1:], across[1:], strict=True):
                torch.add(of_prefix, of_suffixes, out=grad[group.prefix])
        return grads[0], grads[1], grads[2], None, None
