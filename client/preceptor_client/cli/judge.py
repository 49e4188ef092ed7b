"""`preceptor judge`: verdicts on candidates, as a table or as JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ConfigDict, TypeAdapter, ValidationError
from rich.table import Table

from preceptor_client.calls import ALL_AXES, judge_texts_request
from preceptor_client.cli.common import CommandError, print_json, read_lines, settings_with, shortened, stdout
from preceptor_client.config import describe
from preceptor_client.contract import Cohort, JudgeRequest, JudgeResponse, Message, Sampling, Status, Text
from preceptor_client.sdk import AsyncPreceptorClient
from preceptor_client.settings import ClientSettings

_EXAMPLES = """\b
Examples:
  preceptor judge "The capital of France is" "Paris, on the Seine." "a kind of cheese."
  preceptor judge --axis safety --votes 5 --temperature 1 "He said" "hello." "go away."
  preceptor judge --file cohorts.jsonl --json > verdicts.jsonl
A line of the file is a cohort as the API takes it, or {"prefix": "...", "candidates": ["...", "..."]}."""


class PlainCohort(Message):
    """A cohort as a person writes it: texts instead of candidates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: Text
    candidates: tuple[Text, ...]
    reference: Text | None = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("judge", epilog=_EXAMPLES)(judge)


def judge(
    prefix: Annotated[str | None, typer.Argument(help="The text that is continued.")] = None,
    candidates: Annotated[list[str] | None, typer.Argument(help="The continuations to compare.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSONL of cohorts instead of arguments; - reads stdin.")] = None,
    axis: Annotated[list[str] | None, typer.Option(help="What to judge; may be repeated. [default: all three]")] = None,
    reference: Annotated[str | None, typer.Option(help="A text known to be true, for factuality.")] = None,
    votes: Annotated[int, typer.Option(help="Answers drawn per question.")] = 1,
    temperature: Annotated[float, typer.Option(help="The teacher's temperature; above 0 for several votes.")] = 0.0,
    deadline: Annotated[float | None, typer.Option(help="Seconds per cohort; what is open then is failed.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Cohorts in flight with --file.")] = 8,
    url: Annotated[str | None, typer.Option(help="The judge service. [default: PRECEPTOR_JUDGE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON response a line instead of a table.")] = False,
) -> None:
    """Judge continuations of a prefix: quality against each other, safety and factuality each on its own."""
    axes = tuple(axis or ALL_AXES)
    try:
        sampling = Sampling(votes=votes, temperature=temperature) if (votes, temperature) != (1, 0.0) else None
        if file:
            if prefix or candidates or reference:
                raise CommandError("--file brings prefix, candidates and reference itself: leave them out")
            requests = [_request(item, axes, sampling, deadline) for _, item in read_lines(file, _LINE)]
        elif prefix is None or not candidates:
            raise CommandError("judge needs a prefix and at least one candidate, or --file")
        else:
            requests = [
                _request(
                    PlainCohort(prefix=prefix, candidates=tuple(candidates), reference=reference),
                    axes,
                    sampling,
                    deadline,
                )
            ]
    except ValidationError as error:
        raise CommandError(f"the request does not hold:\n{describe(error)}") from None
    asyncio.run(_judge_all(requests, settings_with(judge_url=url), concurrency, as_json))


_LINE: TypeAdapter[PlainCohort | Cohort] = TypeAdapter(PlainCohort | Cohort)


def _request(
    item: PlainCohort | Cohort, axes: tuple[str, ...], sampling: Sampling | None, deadline: float | None
) -> JudgeRequest:
    if isinstance(item, Cohort):
        return JudgeRequest(cohort=item, axes=axes, sampling=sampling, deadline_s=deadline)
    return judge_texts_request(
        item.prefix, item.candidates, axes=axes, reference=item.reference, sampling=sampling, deadline_s=deadline
    )


async def _judge_all(
    requests: Sequence[JudgeRequest], settings: ClientSettings, concurrency: int, as_json: bool
) -> None:
    """Responses in the order of the requests, each shown as soon as those before it are there."""
    places = asyncio.Semaphore(concurrency)

    async with AsyncPreceptorClient(settings=settings) as client:

        async def one(request: JudgeRequest) -> JudgeResponse:
            async with places:
                return await client.judge(request)

        tasks = [asyncio.create_task(one(request)) for request in requests]
        try:
            for request, task in zip(requests, tasks, strict=True):
                response = await task
                if as_json:
                    print_json(response)
                else:
                    stdout.print(_table(request, response))
        finally:
            for task in tasks:
                task.cancel()


def _table(request: JudgeRequest, response: JudgeResponse) -> Table:
    usage = response.usage
    tokens = usage.prompt_tokens + usage.completion_tokens
    table = Table(
        title=shortened(request.cohort.prefix, 100),
        caption=f"{usage.calls} questions, {tokens} tokens, {response.elapsed_s:.2f} s",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("candidate")
    cells = {
        (verdict.candidate_id, verdict.axis): (
            f"{verdict.score:.2f}" if verdict.status is Status.OK else f"{verdict.status}: {verdict.reason or '?'}"
        )
        for verdict in response.verdicts
    }
    for axis in request.axes:
        table.add_column(str(axis), justify="right")
    for candidate in request.cohort.candidates:
        table.add_row(shortened(candidate.text), *(cells.get((candidate.id, str(axis)), "-") for axis in request.axes))
    return table
