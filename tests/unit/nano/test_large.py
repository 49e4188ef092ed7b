from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.nano.large import LargeSize, write_large_world


def test_texts_are_long_known_word_by_word_and_never_held_out_as_well(tmp_path: Path) -> None:
    write_large_world(tmp_path, LargeSize(texts=8, held_out=4, people=20, width=64, layers=1))
    texts = {
        name: [json.loads(line)["text"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("corpus", "held-out")
    }
    assert (len(texts["corpus"]), len(texts["held-out"])) == (8, 4)
    assert not {*texts["corpus"]} & {*texts["held-out"]}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    for written in texts["corpus"]:
        ids = tokenizer.encode(written, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert len(ids) > 512
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert model.config.max_position_embeddings >= 512
    assert model.config.vocab_size == len(tokenizer)
