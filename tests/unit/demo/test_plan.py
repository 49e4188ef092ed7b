from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_client.config import dump_config, load_config
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.documents import stream_documents
from preceptor_trainer.data.stream import WindowStream
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, baseline, sip, windows
from preceptor_trainer.demo.prepare import write_corpora
from preceptor_trainer.nano.tokenizer import policy_tokenizer

FOLDER = DemoFolder(Path("/demo"))
SMALL = DemoSize(pretrain_documents=50, steps=5, cohorts_per_step=4, held_out=20)


def plans(size: DemoSize = SMALL, seed: int = 3) -> tuple[TrainConfig, TrainConfig]:
    services = {"redis_url": "redis://127.0.0.1:1/0", "rewrite_url": "http://127.0.0.1:2"}
    return baseline(FOLDER, size, seed=seed, threads=1), sip(FOLDER, size, seed=seed, threads=1, **services)


def test_the_two_runs_differ_in_what_they_learn_from_not_in_what_they_see() -> None:
    nll, judged = plans()
    for name in ("data", "steps", "cohorts_per_step", "seed", "model", "threads"):
        assert getattr(nll, name) == getattr(judged, name), name
    assert (nll.objective.name, judged.objective.name) == ("nll", "dpo")
    assert nll.run != judged.run
    assert nll.out != judged.out


def test_sip_rewards_all_axes_and_uses_every_origin() -> None:
    _, judged = plans()
    assert set(judged.judge.axes) == {"quality", "safety", "factuality"}
    assert min(judged.judge.axes.values()) > 0
    assert (judged.pool.original, judged.pool.rewrite, judged.pool.rollouts) == (True, True, SMALL.rollouts)
    assert judged.judge.redis_url == "redis://127.0.0.1:1/0"
    assert judged.rewrite.url == "http://127.0.0.1:2"
    assert judged.model.path == str(FOLDER.run("base"))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [DemoSize(), DemoSize(steps=1)])
def test_the_configurations_hold_when_they_are_read_back(which: int, size: DemoSize, tmp_path: Path) -> None:
    config = plans(size)[which]
    file = tmp_path / "demo.yaml"
    file.write_text(dump_config(config))
    assert load_config(TrainConfig, file, [], env_prefix="PRECEPTOR_UNSET_") == config


def test_the_corpora_share_no_document_and_hold_enough_windows(tmp_path: Path) -> None:
    folder, size = DemoFolder(tmp_path), SMALL
    write_corpora(folder, size, seed=0)
    corpora = [folder.pretrain_corpus, folder.train_corpus, folder.held_out_corpus]
    documents = [[document.text for document in stream_documents(windows(corpus))] for corpus in corpora]
    assert len(documents[0]) == 50
    assert sum(map(len, documents)) == len({text for texts in documents for text in texts})
    encode = policy_tokenizer().encode
    train, held_out = (len(list(WindowStream(windows(corpus, epochs=1), encode))) for corpus in corpora[1:])
    assert train >= size.steps * size.cohorts_per_step
    assert held_out >= size.held_out
