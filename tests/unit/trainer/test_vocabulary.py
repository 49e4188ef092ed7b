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
def test_a_new_token_changes_nothing_about_the_others(make: Any) -> None:
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
    assert after.shape[-1] == known + 2
    torch.testing.assert_close(after[..., :known], before)


def test_new_tokens_differ_as_words_do_and_are_the_same_each_time() -> None:
    made = []
    for tokens in (["<safe>", "<raw>"], ["<raw>"]):
        model, tokenizer = tiny_llama(), word_tokenizer()
        add_tokens(model, tokenizer, tokens)
        weights = model.get_input_embeddings().weight.detach()
        made.append({token: weights[Codec(tokenizer).control(token)] for token in tokens})
    assert torch.equal(made[0]["<raw>"], made[1]["<raw>"])
    apart = (made[0]["<safe>"] - made[0]["<raw>"]).norm().item()
    assert apart == pytest.approx(torch.pdist(weights[: len(WORDS)]).mean().item(), rel=0.3)


def test_what_is_written_begins_as_the_mean_where_it_has_rows_of_its_own() -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    model.config.tie_word_embeddings = False
    model.lm_head = torch.nn.Linear(64, len(WORDS), bias=False)
    text = torch.tensor([[2, 3, 4, 5]])
    add_tokens(model, tokenizer, ["<safe>"])
    with torch.no_grad():
        logits = model(text).logits
    torch.testing.assert_close(logits[..., -1], logits[..., :-1].mean(-1))


def test_a_token_that_is_one_already_stays_as_it_is_and_adds_nothing() -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    before = model.get_input_embeddings().weight.clone()
    add_tokens(model, tokenizer, ["w50", "w51"])
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert len(tokenizer) == len(WORDS)


def test_rows_that_a_model_has_to_spare_are_used() -> None:
    model, tokenizer = tiny_llama(), word_tokenizer()
    model.resize_token_embeddings(64)
    spare = model.get_input_embeddings().weight[len(WORDS)].clone()
    add_tokens(model, tokenizer, ["<safe>"])
    weights = model.get_input_embeddings().weight
    assert len(weights) == model.config.vocab_size == 64
    assert not torch.equal(weights[len(WORDS)], spare)


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
