"""`preceptor`: the commands, and how they end.

In: arguments. Out: results on stdout, everything else on stderr; exit status 0, 1 (it failed), 2 (wrong arguments), 130
(Ctrl-C). An error is told in words, never by a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from preceptor_client.cli import bench, doctor, judge, keys, queue, rewrite, trainer, up
from preceptor_client.cli.common import CommandError
from preceptor_client.config import ConfigError
from preceptor_client.errors import AuthenticationError, PreceptorError
from preceptor_client.stack import FolderInUse, MissingProgram, PartFailed, PortTaken

app = typer.Typer(
    name="preceptor",
    help="Judge-as-a-service for Self-Improving Pretraining.",
    epilog="Start with `preceptor demo`, or with `preceptor up --nano` and `preceptor judge --help`.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
trainer.register(app)
up.register(app)
judge.register(app)
rewrite.register(app)
queue.register(app)
keys.register(app)
doctor.register(app)
bench.register(app)

_TOLD = (CommandError, ConfigError, FolderInUse, MissingProgram, PartFailed, PortTaken, PreceptorError)
# Newer releases of typer carry their own copy of click, so its base class is found by name.
_ARGUMENT_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


@app.callback(invoke_without_command=True)
def preceptor(context: typer.Context) -> None:
    """Show the help when no command is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    try:
        status = app(arguments, standalone_mode=False)
    except AuthenticationError as error:
        return _tell(f"{error}; set PRECEPTOR_API_KEY", 1)
    except _TOLD as error:
        return _tell(str(error), 1)
    except OSError as error:  # a folder that cannot be written, a full disk
        return _tell(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    except _ARGUMENT_ERROR as error:
        return _tell(f"{error.format_message()} (see --help)", 2)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return _tell("interrupted", 130)
    return status if isinstance(status, int) else 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


def _tell(message: str, status: int) -> int:
    print(f"preceptor: {message}", file=sys.stderr)
    return status
