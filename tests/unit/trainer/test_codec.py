from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from preceptor_trainer.codec import Codec


def byte_level() -> Codec:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 5, trainer)
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>"))


def word_level() -> Codec:
    words = ["<eos>", "<unk>", "the", "cat", "sat"]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>"))


BYTES, WORDS = byte_level(), word_level()


@given(st.text())
def test_text_comes_back_from_its_tokens(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert BYTES.decode(BYTES.encode(text)) == text


def test_nothing_is_added_and_words_come_back_with_single_spaces() -> None:
    assert WORDS.encode("the cat  sat") == [2, 3, 4]
    assert WORDS.decode([2, 3, 4]) == "the cat sat"


def test_an_end_of_text_at_the_end_is_left_out_and_one_inside_stays_visible() -> None:
    assert WORDS.decode([2, 3, 0]) == "the cat"
    assert WORDS.decode([2, 0, 3]) == "the <eos> cat"
    assert WORDS.decode([2, 1]) == "the <unk>"
    assert WORDS.decode([0]) == ""


@pytest.mark.parametrize(("rewrite", "text"), [("dog ran", " dog ran"), (" dog ran", " dog ran"), ("\n dog", " dog")])
def test_a_rewrite_joins_the_prefix_as_the_original_did(rewrite: str, text: str) -> None:
    assert BYTES.decode(BYTES.encode_rewrite(rewrite, " cat sat", limit=50)) == text
    assert BYTES.decode(BYTES.encode_rewrite(rewrite, "cat sat", limit=50)) == text.strip()


def test_a_rewrite_is_cut_at_its_limit() -> None:
    assert len(BYTES.encode_rewrite("x" * 100, " cat", limit=7)) == 7
