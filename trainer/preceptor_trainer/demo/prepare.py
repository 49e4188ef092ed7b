"""What the demo needs before anything is judged: corpora, the teacher and the base model.

In: a folder and sizes. Out: files in it, and the teacher's directory in the cache. Both trainings tell their progress
and end with `Stopped` at the next step once `stop` is set. `prepare_run` makes all of it for servers and a trainer that
only share a folder: each part appears whole or not at all, and what is there already is not made again.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from preceptor_client.stack import sole_use
from preceptor_trainer.demo.plan import DemoFolder, DemoSize
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.teacher import ensure_teacher
from preceptor_trainer.pretrained import load_pretrained
from preceptor_trainer.rollouts.vllm_engine import export_for_vllm

Progress = Callable[[str, int, int], None]
"""Told (stage, steps done, steps in all)."""


class Stopped(Exception):
    """A training was ended early."""


def write_corpora(folder: DemoFolder, size: DemoSize, *, seed: int) -> None:
    """Three corpora that share no document."""
    write_corpus(folder.pretrain_corpus, size.pretrain_documents, name="pretrain", seed=seed)
    # Cohorts that tie are dropped and made up for; twice as many documents as are trained on is plenty.
    write_corpus(folder.train_corpus, size.steps * size.cohorts_per_step * 2, name="train", seed=seed)
    write_corpus(folder.held_out_corpus, size.held_out * 3 // 2, name="held-out", seed=seed)


def prepare_teacher(cache_dir: Path, progress: Progress) -> Path:
    """The teacher's directory; trains it unless the cache holds it."""
    return ensure_teacher(cache_dir, progress=lambda done, total: progress("teacher", done, total))


def prepare_base(folder: DemoFolder, size: DemoSize, *, seed: int, progress: Progress, stop: threading.Event) -> Path:
    """Pretrains the base model."""

    def tell(done: int, total: int) -> None:
        if stop.is_set():
            raise Stopped("base model")
        progress("base model", done, total)

    return pretrain(folder.pretrain_corpus, folder.run("base"), steps=size.pretrain_steps, seed=seed, progress=tell)


def prepare_run(root: Path, cache_dir: Path, size: DemoSize, *, seed: int, progress: Progress) -> None:
    """In `root`: `teacher`, which vLLM serves; the corpora and the base model, as in a `DemoFolder`; and `policy`, the
    folder that the policy's vLLM server is started from. May take five minutes; waits while another prepares it."""
    folder = DemoFolder(root)
    with sole_use(root, wait=True):
        teacher = prepare_teacher(cache_dir, progress)
        if not _holds(root / "teacher", teacher.name):
            _appear(root / "teacher", teacher.name, lambda target: shutil.copytree(teacher, target))
        made_from = json.dumps({"seed": seed, **asdict(size)})
        if not _holds(root / "policy", made_from):
            write_corpora(folder, size, seed=seed)
            base = prepare_base(folder, size, seed=seed, progress=progress, stop=threading.Event())
            policy = load_pretrained(str(base), "the base model", key="--out")
            _appear(root / "policy", made_from, lambda target: export_for_vllm(*policy, target))


_MADE_FROM = "made-from.json"


def _holds(target: Path, made_from: str) -> bool:
    """Whether `target` is complete, and was made from this."""
    note = target / _MADE_FROM
    return note.is_file() and note.read_text(encoding="utf-8") == made_from


def _appear(target: Path, made_from: str, make: Callable[[Path], object]) -> None:
    """Have `make` write beside `target`, and put it in its place."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    (partial / _MADE_FROM).write_text(made_from, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
