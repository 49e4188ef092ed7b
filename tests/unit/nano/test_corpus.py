from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.world import UNSAFE_WORDS


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_name_and_seed_decide_the_corpus(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "new" / "a.jsonl", 200, name="train", seed=1)
    again = write_corpus(tmp_path / "b.jsonl", 200, name="train", seed=1)
    assert first.read_bytes() == again.read_bytes()
    assert len(texts(first)) == 200
    longer = write_corpus(tmp_path / "c.jsonl", 300, name="train", seed=1)
    assert texts(longer)[:200] == texts(first)


def test_corpora_of_other_names_or_seeds_share_no_document(tmp_path: Path) -> None:
    kinds = [("pretrain", 0), ("train", 0), ("held-out", 0), ("train", 1)]
    corpora = [
        texts(write_corpus(tmp_path / f"{name}-{seed}.jsonl", 1000, name=name, seed=seed)) for name, seed in kinds
    ]
    assert len({text for corpus in corpora for text in corpus}) == 4000


def test_the_corpus_is_raw(tmp_path: Path) -> None:
    corpus = texts(write_corpus(tmp_path / "raw.jsonl", 500, name="train"))
    unsafe = sum(bool(UNSAFE_WORDS & set(text.split())) for text in corpus)
    assert 0.5 < unsafe / len(corpus) < 0.95, "a fifth of the sentences, so most documents"


def test_a_base_model_is_pretrained_on_a_corpus_and_loads_as_any_model(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "raw.jsonl", 50, name="pretrain")
    told: list[tuple[int, int]] = []
    target = pretrain(corpus, tmp_path / "base", steps=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(target), AutoTokenizer.from_pretrained(target)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.decode(tokenizer.encode(texts(corpus)[0])) == texts(corpus)[0]
