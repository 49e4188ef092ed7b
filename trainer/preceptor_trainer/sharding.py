"""Weights in equal parts, one a rank, by torch's FSDP2.

    layer by layer: gather the parts -> compute -> drop what is not one's own

In: a `SuffixScorer` whose weights are whole, and the `Ranks`. Out: the same module with this rank's parts. `whole` and
`fill` go from parts to whole tensors and back; every rank calls them in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from preceptor_trainer.config import ComputeConfig
from preceptor_trainer.ranks import Ranks
from preceptor_trainer.scoring import SuffixScorer


def shard(scorer: SuffixScorer, names: Sequence[str], ranks: Ranks, compute: ComputeConfig) -> None:
    """In place: each layer of `names` (of `scorer.model`), and what remains. Gradients are summed in float32."""
    # Objectives change nothing in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(next(scorer.parameters()).device.type, (ranks.count,))
    rounded = torch.bfloat16 if compute.precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=rounded, reduce_dtype=torch.float32)
    for name in names:
        fully_shard(scorer.model.get_submodule(name), mesh=mesh, mp_policy=policy)
    fully_shard(scorer, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """All parts of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """This rank's, without a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, values: Tensor | None, ranks: Ranks) -> Tensor:
    """`tensor` with what rank 0 has as `values`; None on the others."""
    if values is None:
        source = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    else:
        source = values.to(tensor.device, tensor.dtype)
    if isinstance(tensor, DTensor):
        return tensor.copy_(distribute_tensor(source, tensor.device_mesh, tensor.placements))
    return tensor.copy_(ranks.spread(source))
