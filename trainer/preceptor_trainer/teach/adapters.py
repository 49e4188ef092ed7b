"""Low-rank adapters in a teacher, by peft: put in, saved, read back, merged.

    checkpoint/                   the whole model, adapters merged: transformers and vLLM load it unchanged
    checkpoint/adapter/           the adapters alone, as peft saves them: to go on from, or to serve beside the base

In: a Hugging Face model, changed in place; everything but the adapters is frozen. Raises `TrainError` without peft.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.teach.config import LoraConfig

FOLDER = "adapter"
_NAME = "default"
_PREFIX = "base_model.model."
"""Names of weights begin so within a model that peft has wrapped, and in its files."""


class Adapted:
    """`base` says which model it is that the adapters belong to."""

    def __init__(self, model: Any, config: LoraConfig, *, base: str, seed: int) -> None:
        try:
            import peft
        except ImportError:
            raise TrainError("model.lora needs peft: pip install 'preceptor[lora]', or leave model.lora out") from None
        targets = config.targets if config.targets == "all-linear" else list(config.targets)
        self._config = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=targets,
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
        )
        torch.manual_seed(seed)
        try:
            self.model = peft.inject_adapter_in_model(self._config, model, adapter_name=_NAME)
        except ValueError as error:
            raise TrainError(f"model.lora: {one_line(str(error))}") from None

    def save_pretrained(self, folder: Path) -> None:
        """Both forms."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        merged(self.model).save_pretrained(folder)
        adapter = folder / FOLDER
        adapter.mkdir()
        self._config.save_pretrained(adapter)
        weights: dict[str, Tensor] = get_peft_model_state_dict(
            self.model, adapter_name=_NAME, save_embedding_layers=False
        )
        named = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in weights.items()}
        save_file(named, adapter / "adapter_model.safetensors")

    def load(self, checkpoint: Path) -> None:
        """Take over the adapters of `checkpoint`."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        saved = load_file(checkpoint / FOLDER / "adapter_model.safetensors")
        named = {name.removeprefix(_PREFIX): tensor for name, tensor in saved.items()}
        set_peft_model_state_dict(self.model, named, adapter_name=_NAME)


def merged(model: Any) -> Any:
    """A copy of `model` with its adapters added to its weights, as if it had never had any."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    layers = [(name, module) for name, module in plain.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        plain.set_submodule(name, layer.get_base_layer())
    return plain
