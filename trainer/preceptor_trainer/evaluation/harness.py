"""lm-evaluation-harness on a checkpoint.

In: a `HarnessPlan`. Out: `TaskResults`, the harness' own figures under its own names. Raises `TrainError` if the
harness is not installed, does not know a task, or cannot run it. Waits for the model and, for tasks that are not on
this machine, for the network.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.evaluation.evaluate import load
from preceptor_trainer.evaluation.plan import HarnessPlan


@dataclass(frozen=True)
class Figure:
    """A metric of a task. `stderr` is None where the harness gives none."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class TaskResults:
    """Task (or group) -> `metric,filter` -> figure; task -> documents that were evaluated."""

    figures: Mapping[str, Mapping[str, Figure]]
    samples: Mapping[str, int]
    version: str
    """Of the harness."""


def run_tasks(plan: HarnessPlan) -> TaskResults:
    """The whole evaluation."""
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise TrainError(f"this needs lm-evaluation-harness ({error}): pip install 'preceptor[lm-eval]'") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if plan.include is not None and not plan.include.is_dir():
        raise TrainError(f"{plan.include}: no such folder; set --include-path")
    manager = TaskManager(include_path=str(plan.include) if plan.include else None)
    if unknown := [task for task in plan.tasks if not manager.match_tasks([task])]:
        raise TrainError(f"lm-evaluation-harness has no task {', '.join(unknown)}: set --lm-eval or --include-path")
    model, codec = load(plan.model)
    if codec.tokenizer.bos_token_id is None and codec.eos_id is None:
        raise TrainError(
            f"the tokenizer of {plan.model} has no bos_token and no eos_token; the harness needs one of them"
        )
    try:
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=codec.tokenizer, backend="causal", batch_size=plan.batch_size),
            tasks=manager.match_tasks(list(plan.tasks)),
            task_manager=manager,
            num_fewshot=plan.fewshot,
            limit=plan.limit,
            log_samples=False,
            random_seed=plan.seed,
            numpy_random_seed=plan.seed,
            torch_random_seed=plan.seed,
            fewshot_random_seed=plan.seed,
        )
    except Exception as error:  # a task may raise anything: its data may be away, its own code may fail
        raise TrainError(f"lm-evaluation-harness: {type(error).__name__}: {one_line(str(error))}") from error
    if found is None:  # on other ranks than the first
        raise TrainError("lm-evaluation-harness gave no results: run it in one process")
    results = found["results"]
    samples = {task: counts["effective"] for task, counts in found.get("n-samples", {}).items()}
    return TaskResults({task: _figures(results[task]) for task in results}, samples, lm_eval.__version__)


def to_json(results: TaskResults, *, model: str) -> dict[str, Any]:
    """The results as one JSON object."""
    return {
        "model": model,
        "lm_eval": results.version,
        "tasks": {
            task: {name: {"value": figure.value, "stderr": figure.stderr} for name, figure in figures.items()}
            for task, figures in results.figures.items()
        },
        "samples": dict(results.samples),
    }


def table(results: TaskResults, *, model: str) -> Group:
    """The results for a person: a row a metric."""
    shown = Table("task", "metric")
    for name in ("documents", "value", "standard error"):
        shown.add_column(name, justify="right")
    for task, figures in results.figures.items():
        for name, figure in figures.items():
            stderr = "-" if figure.stderr is None else f"{figure.stderr:.4f}"
            shown.add_row(task, name, str(results.samples.get(task, "")), f"{figure.value:.4f}", stderr)
    return Group(Text(f"{model}, lm-evaluation-harness {results.version}"), shown)


def _figures(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """From `acc,none` and `acc_stderr,none` to one figure, `acc,none`."""
    figures = {}
    for name, value in metrics.items():
        metric, comma, used = name.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            stderr = metrics.get(f"{metric}_stderr,{used}")
            figures[name] = Figure(value, stderr if isinstance(stderr, int | float) else None)
    return figures
