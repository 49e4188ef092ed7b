"""`preceptor queue status`: how full every stream is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from preceptor_client.cli.common import CommandError, settings_with, stdout

if TYPE_CHECKING:
    from preceptor_client.queue import QueueStatus

_EXAMPLES = """\b
Examples:
  preceptor queue status
  preceptor queue status --redis redis://127.0.0.1:6379/0 --json"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Look into the queue between trainer and judge workers.", rich_markup_mode=None)
    group.callback()(lambda: None)
    group.command("status", epilog=_EXAMPLES)(status)
    app.add_typer(group, name="queue", epilog=_EXAMPLES)


def status(
    redis: Annotated[str | None, typer.Option(help="The queue's Redis. [default: PRECEPTOR_REDIS_URL]")] = None,
    namespace: Annotated[str, typer.Option(help="The queue's name in Redis.")] = "preceptor",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Cohorts waiting, at a worker and dead, and responses not yet consumed by each run."""
    url = settings_with(redis_url=redis).redis_url
    found = asyncio.run(_status(url, namespace))
    if as_json:
        print(json.dumps(asdict(found)))
        return
    table = Table("stream", "entries")
    table.add_row("cohorts, waiting", str(found.waiting))
    table.add_row("cohorts, at a worker", str(found.in_flight))
    table.add_row("dead letters", str(found.dead))
    for run, count in sorted(found.verdicts.items()):
        table.add_row(f"verdicts of {run}", str(count))
    stdout.print(table)


async def _status(url: str, namespace: str) -> QueueStatus:
    try:
        from redis.exceptions import RedisError

        from preceptor_client.queue import CohortQueue, connect
    except ModuleNotFoundError:
        raise CommandError("this needs redis-py: pip install 'preceptor[queue]'") from None
    try:
        async with connect(url, patience_s=1) as connection:
            return await CohortQueue(connection, namespace=namespace).status()
    except (RedisError, ValueError) as error:
        raise CommandError(f"cannot ask Redis at {url}: {error}") from None
