from __future__ import annotations

import random

import pytest

from preceptor_trainer.nano.labelled import Examples
from preceptor_trainer.nano.prompts import ANSWERS, CONTROL_TOKENS
from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.tokenizer import policy_tokenizer, teacher_tokenizer
from preceptor_trainer.nano.world import World, vocabulary


def test_texts_come_back_as_they_were_one_token_a_word(world: World) -> None:
    rng = random.Random(0)
    examples = Examples(world, rng)
    texts = [text(document(world, rng, RAW)) for _ in range(50)]
    questions = [example.prompt for _ in range(20) for example in (examples.quality(), examples.rewrite())]
    for tokenizer, of_tokenizer in ((policy_tokenizer(), texts), (teacher_tokenizer(), texts + questions)):
        for written in of_tokenizer:
            ids = tokenizer.encode(written)
            assert tokenizer.decode(ids) == written
            assert len(ids) == len(written.split())
            assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_policy_cannot_write_a_control_token(token: str) -> None:
    tokenizer = policy_tokenizer()
    assert tokenizer.encode(f"she {token} he")[1] == tokenizer.unk_token_id
    assert token not in tokenizer.decode(range(len(tokenizer)))


def test_a_teacher_has_a_token_for_every_control_token_answer_and_word() -> None:
    tokenizer = teacher_tokenizer()
    words = [*CONTROL_TOKENS, *ANSWERS, *vocabulary()]
    ids = [tokenizer.encode(word) for word in words]
    assert all(len(of_word) == 1 for of_word in ids)
    assert len({of_word[0] for of_word in ids}) == len(words)
    assert tokenizer.eos_token_id not in {of_word[0] for of_word in ids}


def test_unknown_words_are_unknown() -> None:
    for tokenizer in (policy_tokenizer(), teacher_tokenizer()):
        assert tokenizer.encode("she zzz .")[1] == tokenizer.unk_token_id
