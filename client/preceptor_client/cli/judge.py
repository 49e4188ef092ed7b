"""`preceptor judge`: verdicts on candidates, as a table or as JSON lines; on a file of cohorts, resumable.

`preceptor rubrics`: what can be asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import from_json

from preceptor_client.bulk import batched, direct
from preceptor_client.bulk.questions import Answered, BadLineError, Question
from preceptor_client.calls import axes_asked, judge_texts_request
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
from preceptor_client.cli.tables import rubrics_table, verdict_tables
from preceptor_client.config import describe
from preceptor_client.contract import (
    MAX_CANDIDATES,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    Message,
    Order,
    RubricSpec,
    Sampling,
    ScheduleName,
    Status,
    Text,
)
from preceptor_client.rubrics import RubricError, load_rubric
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient

_EXAMPLES = """\b
Examples:
  preceptor judge "The capital of France is" "Paris, on the Seine." "a kind of cheese."
  preceptor judge --axis safety --votes 5 --temperature 1 "He said" "hello." "go away."
  preceptor judge --rubric my-rubric.yaml --detail "He said" "hello." "go away."
  preceptor judge cohorts.jsonl -o verdicts.jsonl
A line of the file is {"prefix": "...", "candidates": ["...", "..."]}, a cohort or a whole request as the API takes it.
Called again, it goes on where the output ends. --batch leaves the work to the service: it goes on without you."""
_RUBRICS_EXAMPLES = """\b
Examples:
  preceptor rubrics
  preceptor rubrics --json"""


class PlainCohort(Message):
    """A cohort as a person writes it: texts instead of candidates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: Text
    candidates: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    reference: Text | None = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("judge", epilog=_EXAMPLES)(judge)
    app.command("rubrics", epilog=_RUBRICS_EXAMPLES)(rubrics)


def judge(
    prefix: Annotated[str | None, typer.Argument(help="The text that is continued; or a .jsonl file.")] = None,
    candidates: Annotated[list[str] | None, typer.Argument(help="The continuations to compare.")] = None,
    file: File = None,
    output: OutputFile = None,
    axis: Annotated[list[str] | None, typer.Option(help="What to judge; may be repeated. [default: all three]")] = None,
    rubric: Annotated[
        list[Path] | None, typer.Option(help="Your own rubric, a file or folder; brings its axis.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="A text known to be true, for factuality.")] = None,
    schedule: Annotated[ScheduleName | None, typer.Option(help="Which pairs are compared.")] = None,
    order: Annotated[Order | None, typer.Option(help="In which order a pair is shown.")] = None,
    votes: Annotated[int, typer.Option(help="Answers drawn per question.")] = 1,
    temperature: Annotated[float, typer.Option(help="The teacher's temperature; above 0 for several votes.")] = 0.0,
    deadline: Annotated[float | None, typer.Option(help="Seconds per cohort; what is open then is failed.")] = None,
    detail: Annotated[bool, typer.Option("--detail", help="With the teacher's reasons and all comparisons.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask again what was answered before.")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Submit a file's lines as batches of the service.")] = False,
    overwrite: Overwrite = False,
    strict: Strict = False,
    concurrency: Concurrency = 8,
    patience: PatienceS = 120.0,
    url: Annotated[str | None, typer.Option(help="The judge service. [default: PRECEPTOR_JUDGE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON response a line instead of a table.")] = False,
) -> None:
    """Judge continuations of a prefix: quality against each other, safety and factuality each on its own."""
    settings = settings_with(judge_url=url)
    texts = [*([prefix] if prefix is not None else []), *(candidates or ())]
    many = file_among(file, texts)
    if many is not None and reference is not None:
        raise CommandError("a file brings its references itself: leave --reference out")
    if many is None and (output or batch):
        raise CommandError("--output and --batch are for a file of cohorts: give one")
    if many is None and len(texts) < 2:
        raise CommandError("judge needs a prefix and at least one candidate, or a .jsonl file")
    specs = {spec.axis: spec for spec in map(_rubric, rubric or ())}
    axes = axes_asked(axis, specs)
    try:
        options = {
            "axes": axes,
            "rubrics": specs,
            "schedule": schedule,
            "order": order,
            "sampling": Sampling(votes=votes, temperature=temperature) if (votes, temperature) != (1, 0.0) else None,
            "cache": "bypass" if no_cache else "use",
            "detail": detail,
            "deadline_s": deadline,
        }
        first, *others = texts if many is None else ("", "")
        cohort = _cohort(PlainCohort(prefix=first, candidates=tuple(others), reference=reference))
        request = JudgeRequest(cohort=cohort, **options)
    except ValidationError as error:
        raise CommandError(f"the request does not hold:\n{describe(error)}") from None
    if many is None:
        with PreceptorClient(settings=settings) as client:
            response = client.judge(request)
        _show(request, response, as_json)
        if not any(verdict.status is Status.OK for verdict in response.verdicts):
            raise CommandError("the teacher gave no verdict on anything: each says why")
        return

    def parse(text: bytes) -> JudgeRequest:
        return _request(text, options)

    def show(answered: Answered) -> None:
        if as_json:
            print(answered.as_line().decode(), end="", flush=True)
        elif isinstance(answered.answer, JudgeResponse):
            _show(parse(answered.question.line.text or b""), answered.answer, as_json=False)
        else:
            tell_error(many, answered)

    async def answers(questions: AsyncIterator[Question]) -> AsyncGenerator[Answered, None]:
        async with AsyncPreceptorClient(settings=settings) as client:
            waiting = direct.Patience(patience)
            if batch:
                run = batched.Run(output, anew=overwrite)
                stream = batched.answers(questions, parse, client, run, patience=waiting, strict=strict)
            else:
                stream = direct.answers(
                    questions, parse, client.judge, patience=waiting, concurrency=concurrency, strict=strict
                )
            async with aclosing(stream):
                async for answered in stream:
                    yield answered
            if batch:
                run.over()

    answer_file(
        many, output, answers, options=request.model_dump_json(exclude={"cohort"}), overwrite=overwrite, show=show
    )


def rubrics(
    url: Annotated[str | None, typer.Option(help="The judge service. [default: PRECEPTOR_JUDGE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer instead of a table.")] = False,
) -> None:
    """List the rubrics that the judge can be asked for."""
    with PreceptorClient(settings=settings_with(judge_url=url)) as client:
        found = client.rubrics()
    if as_json:
        print_json(found)
    else:
        stdout.print(rubrics_table(found))


def _rubric(path: Path) -> RubricSpec:
    try:
        return load_rubric(path)
    except RubricError as error:
        raise CommandError(str(error)) from None


def _cohort(plain: PlainCohort) -> Cohort:
    return judge_texts_request(plain.prefix, plain.candidates, reference=plain.reference).cohort


def _request(text: bytes, options: dict[str, Any]) -> JudgeRequest:
    """A line as a request. Raises BadLineError."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise BadLineError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadLineError("does not hold: it must be a JSON object")
    if "cohort" in value:
        return parsed(JudgeRequest, text)
    candidates = value.get("candidates")
    if "id" in value or (isinstance(candidates, list) and any(isinstance(each, dict) for each in candidates)):
        return JudgeRequest(cohort=parsed(Cohort, text), **options)
    return JudgeRequest(cohort=_cohort(parsed(PlainCohort, text)), **options)


def _show(request: JudgeRequest, response: JudgeResponse, as_json: bool) -> None:
    if as_json:
        print_json(response)
    else:
        for table in verdict_tables(request, response):
            stdout.print(table)
