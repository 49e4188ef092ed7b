"""`preceptor keys`: make, list and remove the keys that a service asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from preceptor_client.cli.common import CommandError, stderr, stdout
from preceptor_client.keys import KeyEntry, KeysError, PriorityName, add_key, read_keys, remove_key

_EXAMPLES = """\b
Examples:
  preceptor keys add alice --file keys.yaml
  preceptor keys add trainer --file keys.yaml --priority training --concurrency 64
  preceptor keys add guest --file keys.yaml --requests-per-minute 60 --tokens-per-minute 100000
  preceptor keys list --file keys.yaml
  preceptor keys remove guest --file keys.yaml
A service takes the file as --auth.keys_file=keys.yaml and notices changes by itself."""

KeysFile = Annotated[Path, typer.Option("--file", help="The keys file.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The API keys of a service.", rich_markup_mode=None)
    group.callback()(lambda: None)
    for command in (add, list_keys, remove):
        group.command(command.__name__.removesuffix("_keys"), epilog=_EXAMPLES)(command)
    app.add_typer(group, name="keys", epilog=_EXAMPLES)


def add(
    name: Annotated[str, typer.Argument(help="Whose key it is: shown in logs and metrics.")],
    file: KeysFile = Path("keys.yaml"),
    priority: Annotated[PriorityName, typer.Option(help="Who goes first at a busy teacher.")] = "interactive",
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="[default: no limit]")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Read and written. [default: no limit]")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests in work at once. [default: no limit]")
    ] = None,
) -> None:
    """Make a key. It is printed once, on stdout: the file holds only its hash."""
    try:
        key = add_key(
            file,
            name,
            priority=priority,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrency=concurrency,
        )
    except KeysError as error:
        raise CommandError(str(error)) from None
    print(key, flush=True)
    stderr.print(f"{name} is in {file}; keep the key, it is not shown again", soft_wrap=True)


def list_keys(
    file: KeysFile = Path("keys.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a key instead of a table.")] = False,
) -> None:
    """Names and limits of all keys."""
    try:
        keys = read_keys(file).keys
    except KeysError as error:
        raise CommandError(str(error)) from None
    if as_json:
        for key in keys:
            print(json.dumps(key.model_dump(mode="json", exclude={"hash"})))
        return
    table = Table("name", "priority", "requests / min", "tokens / min", "at once", "made")
    for key in keys:
        table.add_row(*_row(key))
    stdout.print(table)


def remove(name: Annotated[str, typer.Argument()], file: KeysFile = Path("keys.yaml")) -> None:
    """Take a key away. Services refuse it a second later."""
    try:
        remove_key(file, name)
    except KeysError as error:
        raise CommandError(str(error)) from None
    stderr.print(f"{name} is no longer in {file}", soft_wrap=True)


def _row(key: KeyEntry) -> tuple[str, ...]:
    limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrency)
    return (
        key.name,
        key.priority,
        *("no limit" if limit is None else f"{limit:,}" for limit in limits),
        f"{key.created_at:%Y-%m-%d}",
    )
