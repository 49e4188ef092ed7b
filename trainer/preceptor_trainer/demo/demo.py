"""The demo, from nothing to a report.

    corpora -> teacher -> Redis, vLLM, judge, rewrite, worker || base model -> next-token baseline -> SIP -> evaluation

In: a report folder, sizes and a seed. Out: the report in it; everything on the way (corpora, models, logs, metrics)
beside it. Guarantees: every part is a real process on loopback, and all are stopped however the demo ends. Waits for
each stage in turn; a part that fails meanwhile ends it with `PartFailed`, which names the part and its log.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from preceptor_client.stack import Endpoints, Part, Stack, sole_use, start_local_stack
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, baseline, sip
from preceptor_trainer.demo.prepare import prepare_base, prepare_teacher, write_corpora
from preceptor_trainer.demo.report import MODELS, Findings, show, write_report
from preceptor_trainer.demo.training import continued, run_trainer
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.nano import Comparison
from preceptor_trainer.nano.teacher import read_accuracy

_SERVICES = 5
"""Redis, vLLM, judge, rewrite, worker."""


class Demo:
    """One demo in `root`. `run` may take ten minutes; what it says goes to `console`."""

    def __init__(self, root: Path, cache_dir: Path, size: DemoSize, *, seed: int, console: Console) -> None:
        self._folder = DemoFolder(root.resolve())
        self._cache_dir = cache_dir
        self._size = size
        self._seed = seed
        self._console = console
        self._threads = max(1, (os.cpu_count() or 2) // 2)
        self._stages_s: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def run(self) -> Path:
        """The path of the written `report.md`. Raises `PartFailed`, `FolderInUse`, `MissingProgram`."""
        started = time.monotonic()
        transformers_logging.disable_progress_bar()
        with sole_use(self._folder.root), self._progress:
            teacher = self._teacher()
            with Stack() as stack:
                endpoints = self._start(stack, teacher)
                self._console.print(f"Watch it at {endpoints.judge_url}/", highlight=False)
                self._train(stack, baseline(self._folder, self._size, seed=self._seed, threads=self._threads))
                judged = sip(
                    self._folder,
                    self._size,
                    seed=self._seed,
                    threads=self._threads,
                    redis_url=endpoints.redis_url,
                    rewrite_url=endpoints.rewrite_url,
                )
                self._train(stack, judged)
            generations = self._generate()
        out = judged.out
        findings = Findings(
            accuracy=read_accuracy(teacher),
            comparison=Comparison.by_oracle(generations),
            generations=generations,
            metrics=_lines(out / "metrics.jsonl"),
            summary=json.loads((out / "summary.json").read_text()),
            wall_s=time.monotonic() - started,
            stages_s=self._stages_s,
        )
        show(self._console, findings)
        return write_report(self._folder.root, findings)

    def _teacher(self) -> Path:
        write_corpora(self._folder, self._size, seed=self._seed)
        torch.set_num_threads(os.cpu_count() or 1)
        with self._stage("teacher"):
            return prepare_teacher(self._cache_dir, self._bar)

    def _start(self, stack: Stack, teacher: Path) -> Endpoints:
        """Starts the services; the base model trains beside them, as starting leaves a core half idle."""
        ready: list[Part] = []

        def note(part: Part, is_ready: bool) -> None:
            if is_ready:
                ready.append(part)
            self._bar("services", len(ready), _SERVICES)

        # Two cores are shared by seven processes: threads that spin while they wait would take them from the others.
        os.environ.setdefault("OMP_NUM_THREADS", str(self._threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        torch.set_num_threads(self._threads)
        stop = threading.Event()
        with self._stage("services and base model"), ThreadPoolExecutor(1, "base-model") as threads:
            base = threads.submit(
                prepare_base, self._folder, self._size, seed=self._seed, progress=self._bar, stop=stop
            )
            try:
                endpoints = start_local_stack(
                    stack, self._folder.services, teacher, model="nano-teacher", max_model_len=512, on_change=note
                )
                base.result()
            except BaseException:
                stop.set()
                raise
        return endpoints

    def _train(self, stack: Stack, config: TrainConfig) -> None:
        label = f"training {MODELS[config.run]}"
        with self._stage(label):
            run_trainer(stack, config, on_step=lambda steps: self._bar(label, steps, config.steps))

    def _generate(self) -> dict[str, list[Generation]]:
        generations = {}
        with self._stage("evaluation"):
            for number, model in enumerate(MODELS):
                path = self._folder.run(model) / ("" if model == "base" else "final")
                held_out = continued(path, self._folder.held_out_corpus, self._size.held_out, seed=self._seed)
                generations[model] = held_out.generations
                self._bar("evaluation", number + 1, len(MODELS))
        return generations

    def _bar(self, stage: str, done: int, total: int) -> None:
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._bars[stage], completed=done)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._stages_s[name] = time.monotonic() - start
        if not self._console.is_terminal:
            self._console.print(f"{name}: done in {self._stages_s[name]:.0f} s")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a run that has ended."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
