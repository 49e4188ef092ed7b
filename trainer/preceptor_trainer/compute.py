"""How the layers of a model are computed: kept or computed again, compiled, rounded.

In: a Hugging Face causal language model and the `compute` section. Out: the same model, its layers changed in place;
the numbers that it gives are the same, up to rounding. Names and values of its weights stay. Raises `TrainError` if
the model does not say what its layers are, or this machine cannot compile.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from preceptor_trainer.config import ComputeConfig
from preceptor_trainer.errors import TrainError


def layer_names(model: Any) -> list[str]:
    """Of the modules that a model is made of, in order: what `transformers` never splits over devices."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    names = [name for name, module in model.named_modules() if type(module).__name__ in kinds]
    if not names:
        raise TrainError(
            f"{type(model).__name__} does not say what its layers are (_no_split_modules): run it on one rank, with "
            "compute.activation_checkpointing and compute.compile off"
        )
    return names


def same_weights(model: Any) -> Any:
    """A copy of the modules of `model` around its own weights: what is done to its layers is not done to `model`."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def prepare_layers(model: Any, names: Sequence[str], compute: ComputeConfig, *, trained: bool) -> None:
    """The layers of `names`, as `compute` asks; what is not `trained` keeps no activations anyway."""
    if compute.compile:
        _require_compiler()
    for name in names:
        if compute.activation_checkpointing and trained:
            # No dropout, so no random numbers to keep.
            wrapped = checkpoint_wrapper(model.get_submodule(name), preserve_rng_state=False)
            model.set_submodule(name, wrapped)
        if compute.compile:
            model.get_submodule(name).compile()


def rounded(compute: ComputeConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Inside it, products of matrices have the precision that `compute` names."""
    if compute.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _require_compiler() -> None:
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in compilers if name):
        raise TrainError("compute.compile needs a C++ compiler (g++, clang++ or CXX): install one or set it to false")
