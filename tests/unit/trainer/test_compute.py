from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from preceptor_trainer.compute import layer_names, same_weights
from preceptor_trainer.config import ComputeConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from ranks_update import CASES, Case, cohort, figures, learner, train
from tiny_policy import WORDS, tiny_gpt2, tiny_llama

PLAIN = Case("dpo", ComputeConfig(), cohorts=3)


def tiny_qwen() -> Any:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )


def saved_bytes(trainer: Learner) -> int:
    """What an update keeps for the way back, each tensor once; weights are there anyway."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        inputs = trainer._inputs(trainer._objective.sequences([cohort(0, number) for number in range(3)], 0))
    assert inputs.policy_logps_BT.requires_grad
    return sum(kept.values())


def test_layers_are_found_in_order_whatever_the_architecture() -> None:
    assert layer_names(tiny_llama()) == ["model.layers.0", "model.layers.1"]
    assert layer_names(tiny_qwen()) == ["model.layers.0", "model.layers.1"]
    assert layer_names(tiny_gpt2()) == ["transformer.h.0", "transformer.h.1"]
    with pytest.raises(TrainError, match="Linear does not say what its layers are"):
        layer_names(torch.nn.Linear(1, 1))


def test_another_structure_around_the_same_weights() -> None:
    model = tiny_llama()
    other = same_weights(model)
    assert other is not model
    assert other.model.layers[0] is not model.model.layers[0]
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert one is same


def test_checkpointed_layers_give_the_same_update_and_keep_less() -> None:
    plain, checkpointed = learner(PLAIN), learner(CASES["checkpointing"])
    names = list(plain.model.state_dict())
    assert saved_bytes(checkpointed) < 0.5 * saved_bytes(plain)
    one, other = (figures(train(PLAIN, trainer, 3)) for trainer in (plain, checkpointed))
    assert other == [pytest.approx(each, rel=1e-5, abs=1e-6) for each in one]
    assert list(checkpointed.model.state_dict()) == names


def test_bfloat16_is_the_same_update_up_to_rounding_and_the_weights_stay_float32() -> None:
    plain, rounded = learner(PLAIN), learner(CASES["bfloat16"])
    one, other = (train(PLAIN, trainer, 3) for trainer in (plain, rounded))
    assert [each.loss for each in other] != [each.loss for each in one]
    assert [each.loss for each in other] == pytest.approx([each.loss for each in one], abs=0.03)
    assert {parameter.dtype for parameter in rounded.model.parameters()} == {torch.float32}
    assert {values.dtype for own in rounded.moments().values() for values in own.values()} == {torch.float32}


def test_no_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TrainError, match=r"compute\.compile needs a C\+\+ compiler"):
        learner(Case("nll", ComputeConfig(compile=True)))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_compiled_layers_give_the_same_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = learner(PLAIN), learner(Case("dpo", ComputeConfig(compile=True)))
    one, other = (figures(train(PLAIN, trainer, 2)) for trainer in (plain, compiled))
    assert other == [pytest.approx(each, rel=1e-4, abs=1e-5) for each in one]
