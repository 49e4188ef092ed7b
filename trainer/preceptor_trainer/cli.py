"""`python -m preceptor_trainer`: the trainer's commands. Arguments in, exit status out; errors are one line on
stderr.
"""

from __future__ import annotations

import os
from asyncio import CancelledError
from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.config import ConfigError, dump_config, load_config
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.errors import TrainError

app = typer.Typer(help="Train, evaluate and demonstrate.", no_args_is_help=True, add_completion=False)

DEFAULT_CACHE = Path(os.environ.get("PRECEPTOR_CACHE") or Path.home() / ".cache" / "preceptor")

INTERRUPTED = 130
TERMINATED = 143


@app.callback()
def _commands() -> None:
    """Keeps the commands named even while there is only one."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: preceptor train configs/dpo.yaml --steps=100 --optimizer.lr=1e-4 --dry-run",
)
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Train a policy as CONFIG says; any key can be set as --section.key=value."""
    try:
        resolved = load_config(TrainConfig, config, context.args, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        raise _failed(error, 2) from None
    if dry_run:
        typer.echo(dump_config(resolved), nl=False)
        return
    # Late: torch takes seconds to import, and a wrong configuration should be told at once.
    from preceptor_trainer.run import train as run

    try:
        final = run(resolved)
    except TrainError as error:
        raise _failed(error, 1) from None
    except KeyboardInterrupt:
        raise _failed("stopped by SIGINT", INTERRUPTED) from None
    except CancelledError:
        raise _failed("stopped by SIGTERM", TERMINATED) from None
    typer.echo(f"{resolved.run}: done, the policy is in {final}", err=True)


@app.command("nano-teacher", epilog="Example: preceptor up --nano (which calls this)")
def nano_teacher(
    cache: Annotated[Path, typer.Option(help="Where it is kept.")] = DEFAULT_CACHE,
) -> None:
    """Train the nano teacher if the cache does not hold it; its directory is the last line on stdout."""
    from rich.console import Console
    from rich.progress import Progress

    from preceptor_trainer.nano.teacher import ensure_teacher

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("nano teacher", total=None)
        directory = ensure_teacher(
            cache, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    typer.echo(directory)


@app.command(epilog="Example: preceptor demo --report runs/demo --seed 1")
def demo(
    report: Annotated[Path, typer.Option(help="Folder for the report and everything made on the way.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of corpora, models and sampling.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of each training run.")] = None,
    cache: Annotated[Path, typer.Option(help="Where the nano teacher is kept.")] = DEFAULT_CACHE,
) -> None:
    """Show the whole method on the nano world: about ten minutes on two cores, nothing needed but this machine."""
    from dataclasses import replace

    from rich.console import Console

    from preceptor_client.stack import FolderInUse, MissingProgram, PartFailed
    from preceptor_trainer.demo.demo import Demo
    from preceptor_trainer.demo.plan import DemoSize

    size = DemoSize() if steps is None else replace(DemoSize(), steps=steps)
    try:
        written = Demo(report, cache, size, seed=seed, console=Console()).run()
    except (FolderInUse, MissingProgram, PartFailed, OSError) as error:
        typer.echo(f"preceptor demo: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("preceptor demo: stopped; nothing is left running", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"The report is {written}")


def _failed(why: object, status: int) -> typer.Exit:
    typer.echo(f"preceptor train: {why}", err=True)
    return typer.Exit(status)


def main() -> None:
    """Entry point."""
    app()
