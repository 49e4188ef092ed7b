"""What `judge` and `rewrite` do with a file: every line answered, in order, with a progress bar, resumable.

In: a JSONL file, where its answers go, and how they are got. Out: one line each, and on stderr the first error and a
summary. Raises `CommandError` for what a user can change, and `PreceptorError`; ends with status 1 if a line has no
response.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from preceptor_client.bulk.batched import BatchCutShortError
from preceptor_client.bulk.lines import read_lines
from preceptor_client.bulk.output import Output, OutputError
from preceptor_client.bulk.questions import (
    Answered,
    BadLineError,
    ChangedInputError,
    Question,
    StrictError,
    Tally,
    questions,
)
from preceptor_client.cli.common import CommandError, stderr
from preceptor_client.config import describe
from preceptor_client.contract import Problem
from preceptor_client.errors import PreceptorError

MessageT = TypeVar("MessageT", bound=BaseModel)
Answers = Callable[[AsyncIterator[Question]], AsyncGenerator[Answered, None]]

SUFFIXES = (".jsonl", ".ndjson")

File = Annotated[Path | None, typer.Option("--file", help="JSONL instead of texts; - reads stdin.")]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="JSONL file for the answers; a second call goes on in it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin the output anew.")]
Strict = Annotated[bool, typer.Option("--strict", help="End at a line that is not a request.")]
Concurrency = Annotated[int, typer.Option(min=1, max=1024, help="Lines of a file in flight.")]
PatienceS = Annotated[float, typer.Option("--patience", min=0, help="Seconds to wait for a service that went away.")]


def file_among(file: Path | None, texts: list[str]) -> Path | None:
    """The file that is meant: the option's, or a single argument that names one."""
    if file is not None:
        if texts:
            raise CommandError("a file brings all texts itself: leave them out")
        return file
    if len(texts) == 1 and (texts[0] == "-" or texts[0].endswith(SUFFIXES)):
        return Path(texts[0])
    return None


def parsed(kind: type[MessageT], text: bytes) -> MessageT:
    """A line as a message. Raises BadLineError."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise BadLineError("does not hold: " + "; ".join(map(str.strip, describe(error).splitlines()))) from None


def answer_file(
    file: Path,
    output: Path | None,
    answers: Answers,
    *,
    options: str,
    overwrite: bool,
    show: Callable[[Answered], None],
) -> None:
    """Answer every line of `file`: into `output`, else to `show`. `options` is whatever else decides an answer."""
    if overwrite and output is None:
        raise CommandError("--overwrite needs --output")
    tally, started = Tally(), time.monotonic()
    try:
        asyncio.run(_answer_file(file, output, answers, tally, options=options, overwrite=overwrite, show=show))
    except ChangedInputError as error:
        raise CommandError(f"{output} cannot go on: {error}. Give another --output, or --overwrite") from None
    except (OutputError, BatchCutShortError) as error:
        raise CommandError(str(error)) from None
    except StrictError as error:
        raise CommandError(f"{file}:{error}") from None
    except (KeyboardInterrupt, PreceptorError):
        if output is not None:
            stderr.print(f"{output} has {tally.before + tally.lines} answers; the same command goes on after them")
        raise
    if output is not None:
        stderr.print(summary(tally, time.monotonic() - started), soft_wrap=True, highlight=False)
    if tally.errors or tally.errors_before:
        raise typer.Exit(1)


def tell_error(file: Path, answered: Answered) -> None:
    """Say why a line has no response, if it has none."""
    if isinstance(answered.answer, Problem):
        place = f"{file}:{answered.question.line.number}"
        stderr.print(f"{place} {answered.answer.detail}", soft_wrap=True, markup=False, highlight=False)


async def _answer_file(
    file: Path,
    output: Path | None,
    answers: Answers,
    tally: Tally,
    *,
    options: str,
    overwrite: bool,
    show: Callable[[Answered], None],
) -> None:
    with ExitStack() as stack:
        try:
            stream = sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}") from None
        written = stack.enter_context(Output(output, overwrite=overwrite)) if output is not None else None
        before = written.before() if written is not None else iter(())
        bar = stack.enter_context(_progress(shown=written is not None))
        task = bar.add_task("", total=os.fstat(stream.fileno()).st_size or None, lines=0)
        asked = questions(read_lines(stream), options, before, tally)
        async with aclosing(answers(asked)) as answered_in_order:
            async for answered in answered_in_order:
                if written is not None:
                    written.write(answered)
                    if not tally.errors:
                        tell_error(file, answered)  # the first: it is often that of all
                else:
                    show(answered)
                tally.add(answered)
                bar.update(task, completed=answered.question.line.end, lines=tally.before + tally.lines)


def _progress(*, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.fields[lines]:,} lines"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not (shown and stderr.is_terminal),
    )


def summary(tally: Tally, seconds: float) -> str:
    """`1,000 lines, 3 errors (400 lines before, 1 error): 2,990 ok, 4 abstained; 345.6/s`."""
    text = f"{_count(tally.lines, 'line')}, {_count(tally.errors, 'error')}"
    if tally.before:
        text += f" ({_count(tally.before, 'line')} before, {_count(tally.errors_before, 'error')})"
    if tally.results:
        text += ": " + ", ".join(f"{count:,} {result}" for result, count in sorted(tally.results.items()))
        text += f"; {tally.results.total() / max(seconds, 1e-9):,.1f}/s"
    return text


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
