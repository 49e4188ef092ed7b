"""`python -m preceptor_trainer`: the trainer's commands. Arguments in, exit status out; errors are one line on
stderr.
"""

from __future__ import annotations

from asyncio import CancelledError
from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.config import ConfigError, dump_config, load_config
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.errors import TrainError

app = typer.Typer(help="Train, evaluate and demonstrate.", no_args_is_help=True, add_completion=False)

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


def _failed(why: object, status: int) -> typer.Exit:
    typer.echo(f"preceptor train: {why}", err=True)
    return typer.Exit(status)


def main() -> None:
    """Entry point."""
    app()
