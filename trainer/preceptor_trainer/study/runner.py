"""`preceptor study`: what is missing of a study's runs, one after the other, then its tables and its picture.

    corpora, models -> Redis, vLLM, judge, rewrite, worker; a second judge -> for each run: train, measure, note

In: runs and a folder. Out: in the folder `<study>.jsonl`, `<study>.md` and `<study>.png`, written anew after each run.
Guarantees: however it ends, the same command goes on with what is missing: what is measured stays measured, a run that
was under way goes on from its checkpoint, and a file or model is there whole or not at all. A measured run whose policy
is gone is trained again where another run needs it. Two commands in one folder refuse each other. Raises `PartFailed`,
`FolderInUse`, `MissingProgram`, `TrainError`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from preceptor_client.errors import PreceptorError
from preceptor_client.stack import Endpoints, Stack, judge_part, sole_use, start_local_stack, vllm_part
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.demo.training import Continued, continued, run_trainer
from preceptor_trainer.errors import TrainError
from preceptor_trainer.nano.base import pretrain
from preceptor_trainer.nano.corpus import write_corpus
from preceptor_trainer.nano.teacher import Recipe, TeacherAccuracy, ensure_teacher, read_accuracy
from preceptor_trainer.study.definition import BASE, STARTS, Study, StudySize
from preceptor_trainer.study.held_judge import held_judge
from preceptor_trainer.study.measuring import measure
from preceptor_trainer.study.plan import Run, StudyFolder, grouped
from preceptor_trainer.study.record import NO_COST, cost, exactly, here_and_now, summary_of
from preceptor_trainer.study.report import write_report
from preceptor_trainer.study.results import SHOWN, markdown
from preceptor_trainer.whole import made_once

_SECOND_SEED = 1
"""Of the second judge; the nano teacher has 0."""


class StudyRunner:
    """`runs` are those of `study`. What it says goes to `console`."""

    def __init__(self, study: Study, runs: Sequence[Run], folder: Path, cache_dir: Path, console: Console) -> None:
        self._study = study
        self._runs = runs
        self._folder = StudyFolder(folder.resolve())
        self._cache_dir = cache_dir
        self._console = console
        self._threads = max(1, (os.cpu_count() or 2) // 2)
        self._progress = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        # One for each call, and not for the module: it holds models.
        self._base = lru_cache(maxsize=1)(self._continue_base)

    def run(self) -> Path:
        """The path of the written Markdown. Takes as long as the runs that are missing."""
        transformers_logging.disable_progress_bar()
        os.environ.setdefault("OMP_NUM_THREADS", str(self._threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with sole_use(self._folder.root), self._progress:
            self._all = self._progress.add_task(f"study {self._study.name}", total=len(self._runs))
            self._report()
            for group in grouped(missing(self._runs, self._folder)):
                self._run_group(group)
            return self._report()

    def _run_group(self, runs: Sequence[Run]) -> None:
        """`runs` have the same teacher."""
        torch.set_num_threads(os.cpu_count() or 1)
        for run in runs:
            self._prepare(run)
        teacher = self._training_judge(runs[0])
        second = self._teacher(Recipe(seed=_SECOND_SEED, steps=self._study.size.second_steps))
        torch.set_num_threads(self._threads)
        with Stack() as stack:
            endpoints, judges = self._start(stack, teacher, second)
            for run in runs:
                self._do(stack, endpoints, judges, run, read_accuracy(teacher))
                self._report()

    def _do(
        self, stack: Stack, endpoints: Endpoints, judges: dict[str, str], run: Run, accuracy: TeacherAccuracy
    ) -> None:
        """Train, unless that is done, and measure. The result is the last thing that is written."""
        result, policy = self._folder.result(run.id), self._folder.policy(run.training)
        if result.exists() and (policy.exists() or not run.plan):
            return  # two variants may be the same run
        started = time.monotonic()
        name = f"{run.variant.name}, seed {run.seed}"
        took = self._train(stack, endpoints, run, name) if run.plan else NO_COST
        if not result.exists():
            record = {
                "id": run.id,
                "training": run.training,
                "measures": self._measure(run, judges),
                **took,
                "teacher": asdict(accuracy),
                "flops": run.flops,
                **here_and_now(),
            }
            made_once(result, lambda path: path.write_text(json.dumps(record) + "\n"))
        if not self._console.is_terminal:
            self._console.print(f"{name}: done in {time.monotonic() - started:.0f} s")

    def _train(self, stack: Stack, endpoints: Endpoints, run: Run, name: str) -> dict[str, Any]:
        """What it cost, now or when the same policy was measured behind another control."""
        config = run.config(self._folder, endpoints, self._threads)
        same = (other for other in self._runs if other.training == run.training)
        measured = any(self._folder.result(other.id).exists() for other in same)
        if not (measured and self._folder.policy(run.training).exists()):
            self._run_trainer(stack, endpoints, run, config, name)
        return cost(config.steps, summary_of(config))

    def _run_trainer(self, stack: Stack, endpoints: Endpoints, run: Run, config: TrainConfig, name: str) -> None:
        holding = (
            held_judge(stack, endpoints, config, config.staleness.limit * config.cohorts_per_step)
            if run.variant.hold
            else nullcontext()
        )
        with self._bar(name, config.steps) as on_step, holding:
            run_trainer(stack, config, start="resume", on_step=on_step)

    def _measure(self, run: Run, judges: dict[str, str]) -> dict[str, Any]:
        """All measures by name."""
        world = self._folder.world(run.seed, run.size)
        checkpoint = self._folder.policy(run.training) if run.plan else run.start(self._folder)
        policy = continued(
            checkpoint, world.held_out_corpus, run.size.held_out, seed=run.seed, control=run.variant.control
        )
        # The base model against itself ties, whoever judges.
        asked = {} if checkpoint == world.run(BASE.start) else judges
        try:
            measures = measure(policy, self._base(run.seed, run.size), asked, run.size.judged)
        except PreceptorError as error:
            raise TrainError(f"a judge of the evaluation does not answer: {error}") from error
        return {name: exactly(estimate) for name, estimate in measures.items()}

    def _continue_base(self, seed: int, size: StudySize) -> Continued:
        world = self._folder.world(seed, size)
        return continued(world.run("base"), world.held_out_corpus, size.held_out, seed=seed)

    def _training_judge(self, run: Run) -> Path:
        steps, start = run.variant.teacher_steps, run.teacher_start(self._folder)
        return self._teacher(Recipe() if steps is None else Recipe(steps=steps), start)

    def _teacher(self, recipe: Recipe, policy: Path | None = None) -> Path:
        """In the cache; one that begins as a policy is the study's own."""
        folder = self._folder.teachers if policy else self._cache_dir
        with self._bar(f"judge, seed {recipe.seed}, {recipe.steps} steps", recipe.steps) as on_step:
            return ensure_teacher(folder, recipe=recipe, policy=policy, progress=lambda done, total: on_step(done))

    def _prepare(self, run: Run) -> None:
        """Corpora and the models that are started from."""
        size, seed = run.size, run.seed
        world = self._folder.world(seed, size)
        pretrain_corpus = made_once(
            world.pretrain_corpus, lambda to: write_corpus(to, size.pretrain_documents, name="pretrain", seed=seed)
        )
        made_once(
            world.held_out_corpus, lambda to: write_corpus(to, size.held_out * 3 // 2, name="held-out", seed=seed)
        )
        if run.plan:
            made_once(run.corpus(self._folder), lambda to: write_corpus(to, run.documents, name="train", seed=seed))
        for start, steps in zip(STARTS, (size.pretrain_steps, 0), strict=True):
            with self._bar(f"{start} model, seed {seed}", max(1, steps)) as on_step:
                made_once(
                    world.run(start),
                    lambda to, steps=steps, told=on_step: pretrain(  # type: ignore[misc]
                        pretrain_corpus, to, steps=steps, seed=seed, progress=lambda done, _: told(done)
                    ),
                )

    def _start(self, stack: Stack, teacher: Path, second: Path) -> tuple[Endpoints, dict[str, str]]:
        """Everything that trains, and beside it the judge that only measures."""
        folder = self._folder.services(teacher.name)
        # The teachers first: they take longest to start.
        second_engine = stack.launch(vllm_part(second, "second", folder / "second", name="second-teacher"))
        endpoints = start_local_stack(stack, folder, teacher, model="nano-teacher", max_model_len=512)
        stack.wait_ready(second_engine)
        second_url = second_engine.part.url or ""
        second_judge = stack.start(judge_part(folder / "second", second_url, "second")).part.url or ""
        return endpoints, {"judge": endpoints.judge_url, "second": second_judge}

    def _report(self) -> Path:
        """Tables and picture of what is done."""
        records = []
        for run in self._runs:
            if (path := self._folder.result(run.id)).exists():
                result = json.loads(path.read_text(encoding="utf-8"))
                records.append({"study": self._study.name, "variant": run.variant.name, "seed": run.seed, **result})
        self._progress.update(self._all, completed=len(records))
        tables = markdown(self._study, records)
        return write_report(self._folder.root, self._study, records, tables=tables, shown=SHOWN)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar for as long as the block lasts."""
        task = self._progress.add_task(f"  {name}", total=total)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)


def missing(runs: Sequence[Run], folder: StudyFolder) -> list[Run]:
    """Those without a result, and those whose policy is gone and which one of these needs. In the order of the plan."""
    wanted: set[str] = set()
    for run in reversed(runs):  # what one needs is before it
        if run.id in wanted or not folder.result(run.id).exists():
            wanted.add(run.id)
            wanted.update(need.id for need in run.needs.values() if not folder.policy(need.id).exists())
    return [run for run in runs if run.id in wanted]
