"""`preceptor rewrite`: the teacher's version of a suffix; on a file of them, resumable."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape

from preceptor_client.bulk import direct
from preceptor_client.bulk.questions import Answered, Question
from preceptor_client.cli.bulk import (
    Concurrency,
    File,
    OutputFile,
    Overwrite,
    PatienceS,
    Strict,
    answer_file,
    file_among,
    parsed,
    tell_error,
)
from preceptor_client.cli.common import CommandError, print_json, settings_with, stdout
from preceptor_client.config import describe
from preceptor_client.contract import RewriteRequest, RewriteResponse
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient

_EXAMPLES = """\b
Examples:
  preceptor rewrite "The capital of France is" "Lyon, on the Seine."
  preceptor rewrite suffixes.jsonl -o rewrites.jsonl
A line of the file is {"prefix": "...", "suffix": "..."}. Called again, it goes on where the output ends."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rewrite", epilog=_EXAMPLES)(rewrite)


def rewrite(
    prefix: Annotated[str | None, typer.Argument(help="The text before the suffix; or a .jsonl file.")] = None,
    suffix: Annotated[str | None, typer.Argument(help="The text to copy if it is good, to repair otherwise.")] = None,
    file: File = None,
    output: OutputFile = None,
    max_tokens: Annotated[int | None, typer.Option(help="Bound on the rewrite, in teacher tokens.")] = None,
    samples: Annotated[int | None, typer.Option(help="Rewrites drawn, of which the judge takes the best.")] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
    concurrency: Concurrency = 32,
    patience: PatienceS = 120.0,
    url: Annotated[str | None, typer.Option(help="The rewrite service. [default: PRECEPTOR_REWRITE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON response a line instead of text.")] = False,
) -> None:
    """Rewrite a suffix: the text on stdout, or why there is none."""
    settings = settings_with(rewrite_url=url)
    texts = [text for text in (prefix, suffix) if text is not None]
    many = file_among(file, texts)
    if many is None and output is not None:
        raise CommandError("--output is for a file of suffixes: give one")
    if many is None and len(texts) < 2:
        raise CommandError("rewrite needs a prefix and a suffix, or a .jsonl file")
    given = {name: value for name, value in (("max_tokens", max_tokens), ("samples", samples)) if value is not None}
    try:
        first, second = texts if many is None else ("", "any")
        request = RewriteRequest.model_validate({"prefix": first, "suffix": second, **given})
    except ValidationError as error:
        raise CommandError(f"the request does not hold:\n{describe(error)}") from None
    if many is None:
        with PreceptorClient(settings=settings) as client:
            _show(client.rewrite(request), as_json)
        return

    def parse(text: bytes) -> RewriteRequest:
        found = parsed(RewriteRequest, text)
        return found.model_copy(update={name: given[name] for name in given if getattr(found, name) is None})

    def show(answered: Answered) -> None:
        if as_json:
            print(answered.as_line().decode(), end="", flush=True)
        elif isinstance(answered.answer, RewriteResponse):
            _show(answered.answer, as_json=False)
        else:
            tell_error(many, answered)

    async def answers(questions: AsyncIterator[Question]) -> AsyncGenerator[Answered, None]:
        async with AsyncPreceptorClient(settings=settings) as client:
            waiting = direct.Patience(patience)
            stream = direct.answers(
                questions, parse, client.rewrite, patience=waiting, concurrency=concurrency, strict=strict
            )
            async with aclosing(stream):
                async for answered in stream:
                    yield answered

    options = request.model_dump_json(exclude={"prefix", "suffix"})
    answer_file(many, output, answers, options=options, overwrite=overwrite, show=show)


def _show(response: RewriteResponse, as_json: bool) -> None:
    if as_json:
        print_json(response)
    else:
        said = (
            escape(response.rewrite)
            if response.rewrite is not None
            else f"[dim]({escape(response.reason or '')})[/dim]"
        )
        stdout.print(f"[bold]{response.outcome}[/bold] {said}", soft_wrap=True)
