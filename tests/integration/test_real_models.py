"""Every configuration for a real model, on a tiny model in its likeness and documents in the format of its corpus."""

from __future__ import annotations

import gzip
import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from likenesses import LIKENESSES
from preceptor_client.config import load_config
from preceptor_services.fencing import Neutraliser
from preceptor_services.settings import ServiceSettings
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import stream_documents
from preceptor_trainer.run import train

CONFIGS = Path(__file__).parents[2] / "configs"
TEXTS = [text for text in pydoc_data.topics.topics.values() if len(text.split()) >= 50][:40]
POLICIES = sorted((CONFIGS / "policies").glob("*.yaml"))
TEACHERS = sorted((CONFIGS / "teachers").glob("*.yaml"))


def resolved(path: Path, *changes: str) -> TrainConfig:
    return load_config(TrainConfig, path, changes, env_prefix="NO_SUCH_")


def write_corpus(folder: Path, data: DataConfig) -> str:
    """`TEXTS` as that corpus has them; its path."""
    records = [{data.text_field: text, "language_score": 0.9} for text in TEXTS]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    if data.source == "parquet":
        pq.write_table(pa.Table.from_pylist(records), folder / "000.parquet")
    elif data.beside:
        signals = {"quality_signals": json.dumps({"rps_doc_ldnoobw_words": [[0, 9, 2.0]]})}
        for name in ("documents", "quality_signals"):
            (folder / "corpus" / name).mkdir(parents=True)
        (folder / "corpus" / "documents" / "en.json.gz").write_bytes(gzip.compress(lines))
        beside = folder / "corpus" / "quality_signals" / "en.signals.json.gz"
        beside.write_bytes(gzip.compress((json.dumps(signals) + "\n").encode() * len(records)))
        return str(folder / "corpus" / "documents")
    else:
        with pa.CompressedOutputStream(str(folder / "shard.jsonl.zst"), "zstd") as file:
            file.write(lines)
    return str(folder)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_is_trained_from_its_corpus_to_a_model_that_loads(path: Path, tmp_path: Path) -> None:
    """All but the judge, whose part is the same for every policy: rollouts, scoring, updates, a checkpoint."""
    real = resolved(path)
    model = LIKENESSES[real.model.path].save(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    config = resolved(
        path,
        f"--model.path={model}",
        f"--data.path={write_corpus(tmp_path / 'corpus', real.data)}",
        "--data.prefix_tokens=48",
        "--data.suffix_tokens=16",
        f"--out={tmp_path / 'out'}",
        "--steps=2",
        "--cohorts_per_step=4",
        "--pool={original: true, rewrite: false, rollouts: 2}",
        "--objective.prefer=[original, rollout]",
        "--rollouts.engine=torch",
        "--guards={entropy: null, length: null, repetition: null, discrimination: null, abstention: null}",
        "--device=cpu",
        "--optimizer.warmup_steps=0",
        "--compute.precision=float32",
        "--compute.micro_cohorts=2",
    )
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    trained: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "final")
    before: Any = AutoModelForCausalLM.from_pretrained(model)
    assert trained.config.model_type == before.config.model_type
    moved = [
        name for name, weight in before.state_dict().items() if not torch.equal(weight, trained.state_dict()[name])
    ]
    assert moved
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out" / "final")
    assert tokenizer.decode(tokenizer.encode("a text", add_special_tokens=False)) == "a text"


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_corpus_is_read_as_its_configuration_says(path: Path, tmp_path: Path) -> None:
    real = resolved(CONFIGS / "sip.yaml", f"--include={path}").data
    place = write_corpus(tmp_path, real)
    config = real.model_copy(update={"path": place, "shuffle_shards": False})
    assert [document.text for document in stream_documents(config)] == TEXTS


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_candidate_cannot_forge_the_turns_of_a_teacher(path: Path) -> None:
    settings = load_config(ServiceSettings, path, env_prefix="NO_SUCH_")
    tokenizer = LIKENESSES[str(settings.engine.model)].tokenizer()

    def control_tokens(candidate: str) -> list[int]:
        turns = [{"role": "system", "content": "You judge."}, {"role": "user", "content": candidate}]
        ids = tokenizer.encode(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)
        return [id for id in ids if id in tokenizer.added_tokens_decoder]

    forged = "".join(str(token) for token in tokenizer.added_tokens_decoder.values()) * 2
    assert len(control_tokens(forged)) > len(control_tokens("a text")) > 0
    assert control_tokens(Neutraliser().clean(forged)) == control_tokens("a text")
