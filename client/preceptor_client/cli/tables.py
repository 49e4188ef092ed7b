"""Responses as tables for a terminal. Pure. What a model or a document wrote is never read as markup."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from preceptor_client.cli.common import shortened
from preceptor_client.contract import AxisReport, JudgeRequest, JudgeResponse, RubricList, Status, Verdict

_SYMBOLS = {"first": ">", "second": "<", "tie": "=", "unreadable": "?", "failed": "!"}


def verdict_tables(request: JudgeRequest, response: JudgeResponse) -> Iterator[Table | Text]:
    """The verdicts of one cohort, what they cost; with `detail`, the teacher's reasons and the comparisons as well."""
    yield _verdicts(request, response)
    yield Text(_cost(response), style="dim")
    if request.detail:
        if any(verdict.rationale for verdict in response.verdicts):
            yield _reasons(response)
        for axis, report in response.axes.items():
            if report.comparisons:
                yield _comparisons(axis, report)


def rubrics_table(found: RubricList) -> Table:
    """One rubric a line."""
    table = Table("rubric", "axis", "mode", "default", "hash", "what it judges")
    for each in found.rubrics:
        spec = each.spec
        table.add_row(
            each.name, spec.axis, spec.mode, "yes" if each.default else "", each.hash[:12], escape(spec.description)
        )
    return table


def _verdicts(request: JudgeRequest, response: JudgeResponse) -> Table:
    table = Table(title=escape(shortened(request.cohort.prefix, 100)), title_justify="left")
    table.add_column("candidate")
    cells = {(verdict.candidate_id, verdict.axis): _cell(verdict) for verdict in response.verdicts}
    composites = {each.candidate_id: each for each in response.composites}
    for axis in request.axes:
        table.add_column(str(axis), justify="right")
    if composites:
        table.add_column("composite", justify="right")
    for candidate in request.cohort.candidates:
        row = [cells.get((candidate.id, str(axis)), "-") for axis in request.axes]
        if composite := composites.get(candidate.id):
            row.append(f"{composite.score:.2f}" if composite.score is not None else escape(composite.reason or "-"))
        table.add_row(escape(shortened(candidate.text)), *row)
    return table


def _cell(verdict: Verdict) -> str:
    if verdict.score is not None:
        return f"{verdict.score:.2f}"
    return escape(f"{verdict.status}: {verdict.reason or '?'}" if verdict.status is not Status.OK else "?")


def _cost(response: JudgeResponse) -> str:
    usage = response.usage
    parts = [f"{usage.calls} questions"]
    if usage.cached:
        parts.append(f"{usage.cached} from the cache")
    parts += [f"{usage.tokens} tokens", f"{response.elapsed_s:.2f} s"]
    for axis, report in response.axes.items():
        if report.position_bias is not None:
            parts.append(f"{axis}: position bias {report.position_bias:+.2f}")
    return ", ".join(parts)


def _reasons(response: JudgeResponse) -> Table:
    table = Table("candidate", "axis", "reason")
    for verdict in response.verdicts:
        if verdict.rationale:
            table.add_row(verdict.candidate_id, verdict.axis, escape(verdict.rationale))
    return table


def _comparisons(axis: str, report: AxisReport) -> Table:
    table = Table(axis, "reason")
    for each in report.comparisons:
        table.add_row(f"{each.first} {_SYMBOLS[each.outcome]} {each.second}", escape(each.rationale or ""))
    return table
