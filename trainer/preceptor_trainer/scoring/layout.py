"""Cohorts laid out as one row of tokens, each prefix once.

    row        prefix_1 prefix_2 ... | suffix_1a suffix_1b ... suffix_2a ...        no padding
    positions  0 1 2 ..  0 1 2 ..    | P_1 ..    P_1 ..        P_2 ..               each suffix goes on after its prefix
    sees       itself and what is before it in its own prefix or suffix; a suffix also its whole prefix

In: B pairs of token ids, in any order. Out: a `Layout` and, of it, `Scored`: whose logits say how likely each suffix
token is. Pure. Guarantees: pairs with equal prefixes share one; cohorts are ordered by the length of their prefixes,
so that equal lengths lie side by side. Raises ValueError for an empty prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Of N tokens. `prefixes` has the length of each cohort's prefix, `suffixes` the lengths of its suffixes, and
    `pairs` says of each suffix, in the row's order, which pair it came from.
    """

    ids: list[int]
    positions: list[int]
    prefixes: list[int]
    suffixes: list[list[int]]
    pairs: list[int]

    @property
    def shared(self) -> int:
        """Tokens of all prefixes: the first suffix begins there."""
        return sum(self.prefixes)

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix with its longest suffix."""
        return max(prefix + max(own) for prefix, own in zip(self.prefixes, self.suffixes, strict=True))


@dataclass(frozen=True)
class Scored:
    """M suffix tokens and the R places of the row that predict them; the end of a prefix predicts the first token of
    every suffix after it.

    `rows_M` ascends: token m has the id `targets_M[m]`, is predicted at `places_R[rows_M[m]]`, and its log-probability
    belongs at `cells_M[m]` of the flattened `logps_BT`.
    """

    places_R: Tensor
    rows_M: Tensor
    targets_M: Tensor
    cells_M: Tensor


def lay_out(prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]]) -> Layout:
    """Pairs without a suffix are left out."""
    cohorts: dict[tuple[int, ...], list[int]] = {}
    for pair, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        if not prefix:
            raise ValueError("a prefix must have at least one token")
        if suffix:
            cohorts.setdefault(tuple(prefix), []).append(pair)
    ordered = sorted(cohorts.items(), key=lambda cohort: len(cohort[0]))
    ids = list(chain.from_iterable(prefix for prefix, _ in ordered))
    positions = list(chain.from_iterable(range(len(prefix)) for prefix, _ in ordered))
    for prefix, pairs in ordered:
        for pair in pairs:
            ids.extend(suffixes[pair])
            positions.extend(range(len(prefix), len(prefix) + len(suffixes[pair])))
    return Layout(
        ids,
        positions,
        [len(prefix) for prefix, _ in ordered],
        [[len(suffixes[pair]) for pair in pairs] for _, pairs in ordered],
        [pair for _, pairs in ordered for pair in pairs],
    )


def scored(layout: Layout, width: int) -> Scored:
    """`width` is the T of `logps_BT`. On the CPU."""
    ends_C = torch.tensor(layout.prefixes).cumsum(0) - 1
    lengths_S = torch.tensor([length for own in layout.suffixes for length in own])
    cohorts_S = torch.arange(len(layout.prefixes)).repeat_interleave(torch.tensor([len(o) for o in layout.suffixes]))
    starts_S = layout.shared + lengths_S.cumsum(0) - lengths_S
    later_S = lengths_S - 1
    steps = torch.arange(int(later_S.sum())) - (later_S.cumsum(0) - later_S).repeat_interleave(later_S)
    before = starts_S.repeat_interleave(later_S) + steps
    cells_S = torch.tensor(layout.pairs) * width
    return Scored(
        places_R=torch.cat([ends_C, before]),
        rows_M=torch.cat([cohorts_S, len(ends_C) + torch.arange(len(before))]),
        targets_M=torch.tensor(layout.ids)[torch.cat([starts_S, before + 1])],
        cells_M=torch.cat([cells_S, cells_S.repeat_interleave(later_S) + steps + 1]),
    )


def segments(layout: Layout) -> tuple[Tensor, Tensor]:
    """Of each token, which prefix or suffix it is in (`own_N`), and which prefix goes before it (`shared_N`; its own if
    it is in one).
    """
    count = len(layout.prefixes)
    lengths = torch.tensor(layout.prefixes + [length for own in layout.suffixes for length in own])
    cohorts = torch.arange(count).repeat_interleave(torch.tensor([len(own) for own in layout.suffixes]))
    return (
        torch.arange(len(lengths)).repeat_interleave(lengths),
        torch.cat([torch.arange(count), cohorts]).repeat_interleave(lengths),
    )
