"""What the demo needs before anything is judged: corpora, the teacher and the base model.

In: a folder and sizes. Out: files in it, and the teacher's directory in the cache. Both trainings tell their progress
and end with `Stopped` at the next step once `stop` is set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from preceptor_trainer.demo.plan import DemoFolder, DemoSize
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.teacher import ensure_teacher

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
