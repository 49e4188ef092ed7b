"""A teacher that begins as a policy knows what it knows, and nothing more yet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from byte_model import byte_llama, byte_tokenizer
from preceptor_trainer.errors import TrainError
from preceptor_trainer.nano.inheritance import fingerprint, inherit
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.teaching import LAYERS
from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.tokenizer import policy_tokenizer, teacher_tokenizer
from preceptor_trainer.nano.world import World

WORDS: dict[str, int] = teacher_tokenizer().get_vocab()
CONTROL = [WORDS["<quality>"], WORDS["tie"]]


def teacher(layers: int = LAYERS) -> Any:
    return nano_llama(teacher_tokenizer(), layers=layers, seed=0)


def saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    tokenizer = policy_tokenizer()
    model = nano_llama(tokenizer, layers=LAYERS - 1, seed=7)
    torch.nn.init.uniform_(model.model.norm.weight)
    return saved(tmp_path / "policy", model, tokenizer)


@torch.inference_mode()
def test_on_the_worlds_words_the_teacher_computes_what_the_policy_does(policy: Path, world: World) -> None:
    network, begun = teacher(), teacher()
    inherit(begun, WORDS, policy)
    tokenizer = policy_tokenizer()
    model = type(begun).from_pretrained(policy)
    said = text(document(world, random.Random(0), RAW))
    theirs = model(torch.tensor([tokenizer.encode(said)])).logits
    ours = begun(torch.tensor([[WORDS[word] for word in said.split()]])).logits
    shared = [WORDS[word] for word in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    assert torch.allclose(ours[..., shared], theirs, atol=1e-5)

    embeddings, fresh = begun.model.embed_tokens.weight, network.model.embed_tokens.weight
    assert torch.equal(embeddings[CONTROL], fresh[CONTROL]), "a policy has never met them"
    assert begun.lm_head.weight is embeddings


def test_a_layer_more_adds_nothing_yet_and_can_learn(policy: Path) -> None:
    begun = teacher()
    inherit(begun, WORDS, policy)
    begun(torch.tensor([CONTROL]), labels=torch.tensor([CONTROL])).loss.backward()
    last = begun.model.layers[-1]
    assert not last.mlp.down_proj.weight.any()
    assert last.mlp.down_proj.weight.grad.any()
    assert last.self_attn.o_proj.weight.grad.any()


def test_what_is_no_nano_policy_is_told(policy: Path, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    others = saved(tmp_path / "others", byte_llama(tokenizer, positions=64), tokenizer)
    for folder, layers in ((others, LAYERS), (policy, LAYERS - 2)):
        with pytest.raises(TrainError, match="is no policy of the nano world"):
            inherit(teacher(layers), WORDS, folder)
    with pytest.raises(TrainError, match=r"cannot read the policy .*none: No such file"):
        fingerprint(tmp_path / "none")
