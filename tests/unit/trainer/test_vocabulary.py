from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from byte_model import byte_tokenizer
from preceptor_trainer.codec import Codec, token_id
from preceptor_trainer.errors import TrainError
from preceptor_trainer.vocabulary import add_tokens
from tiny_policy import WORDS, tiny_gpt2, tiny_llama, word_tokenizer


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_new_token_is_the_mean_of_the_others_and_changes_nothing_about_them(make: Any) -> None:
    model, tokenizer = make(), word_tokenizer()
    text = torch.tensor([[2, 3, 4, 5]])
    with torch.no_grad():
        before = model(text).logits
    add_tokens(model, tokenizer, ["<safe>", "<raw>"])
    known = len(WORDS)
    assert [token_id(tokenizer, token) for token in ("<safe>", "<raw>")] == [known, known + 1]
    assert tokenizer.encode("w2 <raw> w3") == [2, known + 1, 3]
    with torch.no_grad():
        after = model(text).logits
    torch.testing.assert_close(after[..., :known], before)
    torch.testing.assert_close(after[..., known:], before.mean(-1, keepdim=True).expand(-1, -1, 2))


def test_a_token_that_is_one_already_stays_as_it_is_and_adds_nothing() -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    before = model.get_input_embeddings().weight.clone()
    add_tokens(model, tokenizer, ["w50", "w51"])
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert len(tokenizer) == len(WORDS)


def test_rows_that_a_model_has_to_spare_are_used() -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    model.resize_token_embeddings(64)
    add_tokens(model, tokenizer, ["<safe>"])
    weights = model.get_input_embeddings().weight
    assert len(weights) == model.config.vocab_size == 64
    torch.testing.assert_close(weights[len(WORDS)], weights[: len(WORDS)].mean(0))


def test_a_checkpoint_knows_the_tokens_and_needs_no_adding(tmp_path: Path) -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    add_tokens(model, tokenizer, ["<safe>"])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert Codec(its).control("<safe>") == len(WORDS)
    add_tokens(loaded, its, ["<safe>"])
    for name, weights in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights)


def test_tokens_of_bytes_are_added_as_one(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    assert token_id(tokenizer, "<safe>") is None
    assert token_id(tokenizer, "<|im_start|>") is not None
    with pytest.raises(TrainError, match="<safe> is not one token of the policy's tokenizer"):
        Codec(tokenizer).control("<safe>")
