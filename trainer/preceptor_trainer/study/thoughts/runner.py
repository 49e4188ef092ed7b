"""`preceptor study thoughts`: what is missing of its runs, seed by seed, then its tables.

    corpora, base model -> Redis, vLLM, judge, rewrite, worker -> for each run: train, measure, note

In: sizes, a number of seeds and a folder. Out: in the folder `thoughts.jsonl`, `thoughts.md` and `thoughts.png`,
written anew after each run. Guarantees: those of `preceptor_trainer.study.runner`. Raises `PartFailed`, `FolderInUse`,
`MissingProgram`, `TrainError`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

from preceptor_client.stack import Endpoints, Stack, sole_use, start_local_stack
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.demo.training import run_trainer
from preceptor_trainer.evaluation.hops import measure
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.hops.corpus import write_documents, write_questions
from preceptor_trainer.nano.hops.teacher import HopsAccuracy, ensure_hops_teacher, read_hops_accuracy
from preceptor_trainer.nano.hops.tokenizer import hops_policy_tokenizer
from preceptor_trainer.study.definition import BASE
from preceptor_trainer.study.record import NO_COST, cost, exactly, here_and_now, summary_of
from preceptor_trainer.study.report import write_report
from preceptor_trainer.study.thoughts.plan import STARTS, STUDY, SeedFolder, ThoughtsSize, plan_run
from preceptor_trainer.study.thoughts.results import SHOWN, markdown
from preceptor_trainer.whole import made_once

_MODEL = "hops-teacher"
_MAX_LENGTH = 128
"""Of a prompt with its answer, in words."""


class ThoughtsRunner:
    """`folder` is shared with the other studies. What it says goes to `console`."""

    def __init__(self, size: ThoughtsSize, seeds: int, folder: Path, cache_dir: Path, console: Console) -> None:
        self._size = size
        self._seeds = seeds
        self._out = folder.resolve()
        self._folder = self._out / STUDY.name / "-".join(str(number) for number in asdict(size).values())
        self._cache_dir = cache_dir
        self._console = console
        self._threads = max(1, (os.cpu_count() or 2) // 2)

    def run(self) -> Path:
        """The path of the written Markdown. Takes as long as the runs that are missing."""
        transformers_logging.disable_progress_bar()
        os.environ.setdefault("OMP_NUM_THREADS", str(self._threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with sole_use(self._folder):
            missing = [(seed, name) for seed, name in self._runs() if not self._of(seed).result(name).exists()]
            if missing:
                torch.set_num_threads(os.cpu_count() or 1)
                with self._bar("teacher") as told:
                    teacher = ensure_hops_teacher(self._cache_dir, progress=told)
                for seed in dict.fromkeys(seed for seed, _ in missing):
                    self._prepare(seed)
                torch.set_num_threads(self._threads)
                with Stack() as stack:
                    services = self._folder / "services"
                    endpoints = start_local_stack(
                        stack, services, teacher, model=_MODEL, rubrics="nano-thoughts", max_model_len=_MAX_LENGTH
                    )
                    for seed, name in missing:
                        self._do(stack, endpoints, seed, name, read_hops_accuracy(teacher))
                        self._report()
            return self._report()

    def _runs(self) -> list[tuple[int, str]]:
        return [(seed, name) for seed in range(self._seeds) for name in (BASE.name, *STARTS)]

    def _of(self, seed: int) -> SeedFolder:
        return SeedFolder(self._folder / f"seed-{seed}")

    def _prepare(self, seed: int) -> None:
        """Corpora and the model that is started from."""
        size, folder = self._size, self._of(seed)
        made_once(
            folder.pretrain_corpus,
            lambda to: write_documents(to, size.pretrain_documents, name="pretrain", seed=seed),
        )
        made_once(folder.questions, lambda to: write_questions(to, size.documents, name="train", seed=seed))
        with self._bar(f"base model, seed {seed}") as told:
            made_once(
                folder.checkpoint(BASE.name),
                lambda to: pretrain(
                    folder.pretrain_corpus,
                    to,
                    steps=size.pretrain_steps,
                    seed=seed,
                    tokenizer=hops_policy_tokenizer(),
                    progress=told,
                ),
            )

    def _do(self, stack: Stack, endpoints: Endpoints, seed: int, name: str, teacher: HopsAccuracy) -> None:
        """Train and measure. The result is the last thing that is written."""
        started = time.monotonic()
        folder = self._of(seed)
        config = plan_run(name, folder, self._size, seed=seed, threads=self._threads, endpoints=endpoints)
        if name != BASE.name:
            with self._bar(f"{name}, seed {seed}") as told:
                run_trainer(stack, config, start="resume", on_step=lambda done: told(done, config.steps))
        measures = measure(folder.checkpoint(name), config, self._size.questions, seed=seed)
        record = {
            "study": STUDY.name,
            "variant": name,
            "seed": seed,
            "measures": {measure: exactly(estimate) for measure, estimate in measures.items()},
            **_cost(name, config),
            "teacher": asdict(teacher),
            **here_and_now(),
        }
        made_once(folder.result(name), lambda path: path.write_text(json.dumps(record) + "\n"))
        self._console.print(f"{name}, seed {seed}: done in {time.monotonic() - started:.0f} s")

    def _report(self) -> Path:
        """Tables and picture of what is done."""
        results = [path for seed, name in self._runs() if (path := self._of(seed).result(name)).exists()]
        records = [json.loads(path.read_text(encoding="utf-8")) for path in results]
        return write_report(self._out, STUDY, records, tables=markdown(records), shown=SHOWN)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar for as long as the block lasts; it is told (done, of how many)."""
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(name, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


def _cost(name: str, config: TrainConfig) -> dict[str, Any]:
    """What the run took, and what became of its thoughts."""
    if name == BASE.name:
        return {**NO_COST, "events": {}}
    summary = summary_of(config)
    return {**cost(config.steps, summary), "events": summary["events"]}
