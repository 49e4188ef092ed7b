"""What the demo needs before anything is judged: corpora, the teacher and the base model.

In: a folder and sizes. Out: files in it, and the teacher's directory in the cache. The teacher and the base model train
side by side, a core each. Waits for both; `stop` ends them early.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from preceptor_trainer.demo.plan import DemoFolder, DemoSize
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.teacher import ensure_teacher

Progress = Callable[[str, int, int], None]
"""Told (stage, steps done, steps in all)."""


class Stopped(Exception):
    """The preparation was ended early."""


def write_corpora(folder: DemoFolder, size: DemoSize, *, seed: int) -> None:
    """Three corpora that share no document."""
    write_corpus(folder.pretrain_corpus, size.pretrain_documents, name="pretrain", seed=seed)
    # Some documents are too short for a window; one and a half times as many as needed is plenty.
    write_corpus(folder.train_corpus, size.steps * size.cohorts_per_step * 3 // 2, name="train", seed=seed)
    write_corpus(folder.held_out_corpus, size.held_out * 3 // 2, name="held-out", seed=seed)


def prepare_models(
    folder: DemoFolder, size: DemoSize, cache_dir: Path, *, seed: int, progress: Progress, stop: threading.Event
) -> Path:
    """Trains what is not there yet; the teacher's directory."""

    def report(stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped(stage)
            progress(stage, done, total)

        return tell

    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="prepare") as threads:
        teacher = threads.submit(ensure_teacher, cache_dir, progress=report("teacher"))
        base = threads.submit(
            pretrain,
            folder.pretrain_corpus,
            folder.run("base"),
            steps=size.pretrain_steps,
            seed=seed,
            progress=report("base model"),
        )
        try:
            base.result()
            return teacher.result()
        except BaseException:
            stop.set()
            raise
