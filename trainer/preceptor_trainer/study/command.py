"""`preceptor study NAME`: from arguments to a study's tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor_trainer.endings import INTERRUPTED, failed
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.nano import DEFAULT_CACHE
from preceptor_trainer.study.definition import Study, StudySize, load_study, packaged
from preceptor_trainer.study.thoughts import plan as thoughts

if TYPE_CHECKING:
    from rich.console import Console

_TINY = StudySize(
    pretrain_documents=200,
    pretrain_steps=10,
    steps=3,
    cohorts_per_step=4,
    rollouts=2,
    held_out=24,
    judged=12,
    second_steps=20,
)


def study(
    name: Annotated[str | None, typer.Argument(help="A study, or a YAML file; without one all are listed.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and tables, shared by all studies.")] = Path(
        "runs/studies"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant; intervals are over them.")] = 3,
    variants: Annotated[str | None, typer.Option(help="These alone, separated by commas.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few steps of everything: to see that it runs.")] = False,
    cache: Annotated[Path, typer.Option(help="Where the nano teachers are kept.")] = DEFAULT_CACHE,
) -> None:
    """Train the variants of a study on the nano world, measure them, and write tables. Goes on where it was stopped."""
    try:
        if name is None:
            for each in (*map(load_study, packaged()), thoughts.STUDY):
                typer.echo(f"{each.name:12} {each.title} ({each.takes})")
            return
        if name == thoughts.STUDY.name:
            if variants:
                raise TrainError(f"study {name} takes no --variants: what it trains goes on from each other")
            written = _run_thoughts(thoughts.TINY if tiny else thoughts.ThoughtsSize(), out, seeds, cache)
        else:
            loaded = load_study(name)
            if tiny:
                loaded = tiny_one(loaded)
            chosen = [each.strip() for each in variants.split(",") if each.strip()] if variants else []
            written = _run(loaded, out, seeds, chosen, cache)
    except TrainError as error:
        raise failed("study", one_line(str(error)), 2) from None
    typer.echo(f"The tables are in {written}")


def tiny_one(study: Study) -> Study:
    """Shows that the study runs, not what comes of it: teachers of its own have a few lessons as well."""
    variants = tuple(
        variant.model_copy(
            update={
                "changes": {key: value for key, value in variant.changes.items() if key != "steps"},
                "teacher_steps": variant.teacher_steps and _TINY.second_steps,
            }
        )
        for variant in study.variants
    )
    return study.model_copy(update={"size": _TINY, "variants": variants})


def _run(loaded: Study, out: Path, seeds: int, chosen: list[str], cache: Path) -> Path:
    from preceptor_trainer.study.plan import plan_runs
    from preceptor_trainer.study.runner import StudyRunner

    runs = plan_runs(loaded, seeds, chosen)
    return _to_the_end(lambda console: StudyRunner(loaded, runs, out, cache, console).run())


def _run_thoughts(size: thoughts.ThoughtsSize, out: Path, seeds: int, cache: Path) -> Path:
    from preceptor_trainer.study.thoughts.runner import ThoughtsRunner

    return _to_the_end(lambda console: ThoughtsRunner(size, seeds, out, cache, console).run())


def _to_the_end(run: Callable[[Console], Path]) -> Path:
    from rich.console import Console

    from preceptor_client.stack import FolderInUse, MissingProgram, PartFailed

    try:
        return run(Console())
    except (FolderInUse, MissingProgram, PartFailed, TrainError, OSError) as error:
        raise failed("study", str(error), 1) from None
    except KeyboardInterrupt:
        raise failed("study", "stopped; the same command goes on with what is missing", INTERRUPTED) from None
