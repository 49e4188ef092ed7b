"""`preceptor rewrite`: the teacher's version of a suffix."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from preceptor_client.cli.common import CommandError, print_json, read_lines, settings_with, stdout
from preceptor_client.config import describe
from preceptor_client.contract import RewriteRequest, RewriteResponse
from preceptor_client.sdk import AsyncPreceptorClient
from preceptor_client.settings import ClientSettings

_EXAMPLES = """\b
Examples:
  preceptor rewrite "The capital of France is" "Lyon, on the Seine."
  preceptor rewrite --file suffixes.jsonl --json > rewrites.jsonl
A line of the file is {"prefix": "...", "suffix": "..."}."""

_LINE = TypeAdapter(RewriteRequest)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rewrite", epilog=_EXAMPLES)(rewrite)


def rewrite(
    prefix: Annotated[str | None, typer.Argument(help="The text before the suffix.")] = None,
    suffix: Annotated[str | None, typer.Argument(help="The text to copy if it is good, to repair otherwise.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSONL of requests instead of arguments; - reads stdin.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Bound on the rewrite, in teacher tokens.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight with --file.")] = 32,
    url: Annotated[str | None, typer.Option(help="The rewrite service. [default: PRECEPTOR_REWRITE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON response a line instead of text.")] = False,
) -> None:
    """Rewrite a suffix: the text on stdout, or why there is none."""
    if file:
        if prefix or suffix:
            raise CommandError("--file brings prefix and suffix itself: leave them out")
        requests = [request for _, request in read_lines(file, _LINE)]
    elif prefix is None or suffix is None:
        raise CommandError("rewrite needs a prefix and a suffix, or --file")
    else:
        try:
            requests = [RewriteRequest(prefix=prefix, suffix=suffix, max_tokens=max_tokens)]
        except ValidationError as error:
            raise CommandError(f"the request does not hold:\n{describe(error)}") from None
    asyncio.run(_rewrite_all(requests, settings_with(rewrite_url=url), concurrency, as_json))


async def _rewrite_all(
    requests: Sequence[RewriteRequest], settings: ClientSettings, concurrency: int, as_json: bool
) -> None:
    places = asyncio.Semaphore(concurrency)

    async with AsyncPreceptorClient(settings=settings) as client:

        async def one(request: RewriteRequest) -> RewriteResponse:
            async with places:
                return await client.rewrite(request)

        tasks = [asyncio.create_task(one(request)) for request in requests]
        try:
            for task in tasks:
                response = await task
                if as_json:
                    print_json(response)
                else:
                    said = (
                        escape(response.rewrite) if response.rewrite is not None else f"[dim]({response.reason})[/dim]"
                    )
                    stdout.print(f"[bold]{response.outcome}[/bold] {said}", soft_wrap=True)
        finally:
            for task in tasks:
                task.cancel()
