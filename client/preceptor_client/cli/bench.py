"""`preceptor bench`: lists or runs the benchmarks of a checkout; each prints one JSON object as its last line."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.cli.common import CommandError

_EXAMPLES = """\b
Examples:
  preceptor bench
  preceptor bench judge --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("bench", epilog=_EXAMPLES, context_settings=passed_on)(bench)


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which to run; all are listed if left out.")] = None,
) -> None:
    """List the benchmarks, or run one; further arguments go to it."""
    folder = find_benchmarks(Path.cwd())
    files = {file.stem.replace("_", "-"): file for file in sorted(folder.glob("[a-z]*.py"))}
    if name is None:
        for stem, file in files.items():
            typer.echo(f"{stem:14} {summary(file)}")
        return
    if name not in files:
        raise CommandError(f"no benchmark {name!r} in {folder}: there is {', '.join(files) or 'none'}")
    # As a module of the checkout: a script's own folder would come first in the search for modules, and `queue` is one
    # of Python's.
    command = [sys.executable, "-m", f"benchmarks.{files[name].stem}", *context.args]
    path = os.pathsep.join(filter(None, (str(folder.parent), os.environ.get("PYTHONPATH"))))
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path})


def find_benchmarks(start: Path) -> Path:
    """The folder `benchmarks` of the checkout that `start` lies in. Raises `CommandError` outside of one."""
    for folder in (start, *start.parents):
        if (folder / "benchmarks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder / "benchmarks"
    raise CommandError(f"{start} is not inside a checkout of Preceptor: benchmarks run from one")


def summary(file: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
