"""A plan as tables: for a terminal, as Markdown, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable

from preceptor_trainer.planning.plan import Plan, Pool


@dataclass(frozen=True)
class Table:
    """Cells are text already."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(plan: Plan) -> Iterator[Table]:
    """Work of a step, pools, the run, and what was reckoned with."""
    yield Table(
        "One step",
        ("stage", "model", "calls", "prompt tokens", "computed", "written", "PFLOP", "GPU-seconds"),
        [
            (
                stage.name,
                stage.model,
                quantity(stage.calls) if stage.calls else "-",
                quantity(stage.sent),
                quantity(stage.computed),
                quantity(stage.written) if stage.written else "-",
                quantity(stage.flops / 1e15),
                quantity(stage.gpu_seconds),
            )
            for stage in plan.stages
        ],
    )
    yield Table(
        f"{plan.gpus} x {plan.gpu.name}",
        ("pool", "does", "GPUs", "seconds a step", "busy", "sequences at once", "GB a GPU"),
        [
            (
                pool.name,
                ", ".join(pool.stages),
                _gpus(pool),
                quantity(pool.seconds),
                f"{100 * pool.seconds / plan.step_seconds:.0f} %",
                f"{pool.sequences * pool.gpus // pool.unit:,}" if pool.sequences else "-",
                f"{pool.memory / 1e9:.0f} of {plan.gpu.memory / 1e9:.0f}",
            )
            for pool in plan.pools
        ],
    )
    update = plan.stages[-1]
    yield Table(
        "The run",
        ("figure", "value"),
        [
            ("seconds a step", quantity(plan.step_seconds) + ("" if plan.overlapped else ", stages in turn")),
            ("steps", f"{plan.steps:,}"),
            ("hours", quantity(plan.hours)),
            ("GPU-hours", quantity(plan.gpu_hours)),
            ("FLOPs", f"{plan.steps * sum(stage.flops for stage in plan.stages):.2e}"),
            *((f"tokens written, {stage.name}", quantity(plan.steps * stage.written)) for stage in plan.stages[:-1]),
            ("tokens computed, update", quantity(plan.steps * update.computed)),
            ("update, FLOPs without shared prefixes over with", f"{plan.naive_update_flops / update.flops:.2f}"),
            ("GB of weights to the policy engine, a step", quantity(plan.sync_bytes / 1e9)),
        ],
    )
    yield Table(
        "Reckoned with",
        ("what", "value", "source"),
        [(each.what, quantity(each.value), each.source) for each in plan.estimates.values()],
    )


def scaling(plans: Sequence[Plan]) -> Table:
    """The same run on other numbers of GPUs."""
    return Table(
        "On other numbers of GPUs",
        ("GPUs", *(pool.name for pool in plans[0].pools), "seconds a step", "hours", "GPU-hours"),
        [
            (
                str(plan.gpus),
                *(str(pool.gpus) for pool in plan.pools),
                quantity(plan.step_seconds),
                quantity(plan.hours),
                quantity(plan.gpu_hours),
            )
            for plan in plans
        ],
    )


def troubles(plan: Plan) -> Iterator[str]:
    """What does not fit, and what to change."""
    for pool in plan.pools:
        if not plan.fits_in(pool):
            what = (
                "lower compute.micro_cohorts, set compute.activation_checkpointing, or give it more GPUs"
                if pool.name == "trainer"
                else "choose a larger GPU"
            )
            yield (
                f"the {pool.name} needs {pool.memory / 1e9:.0f} GB on each of its GPUs, which have "
                f"{plan.gpu.memory / 1e9:.0f}: {what}"
            )


def for_terminal(shown: Sequence[Table]) -> Group:
    """With rich."""
    made = []
    for each in shown:
        table = RichTable(title=each.title, title_justify="left")
        for column in each.columns:
            table.add_column(escape(column), overflow="fold")
        for row in each.rows:
            table.add_row(*map(escape, row))
        made.append(table)
    return Group(*made)


def as_markdown(shown: Sequence[Table]) -> str:
    """For a page."""
    lines: list[str] = []
    for each in shown:
        lines += [f"{each.title}:", "", f"| {' | '.join(each.columns)} |", f"|{'---|' * len(each.columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in each.rows]
        lines.append("")
    return "\n".join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, with the figures that follow from it."""
    pools = [{**asdict(pool), "seconds": pool.seconds} for pool in plan.pools]
    follows = {"gpus": plan.gpus, "hours": plan.hours, "gpu_hours": plan.gpu_hours, "fits": plan.fits}
    return {**asdict(plan), "pools": pools, **follows}


def quantity(value: float) -> str:
    """Three significant digits; k, M, G, T above a thousand."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:,.0f}{unit}"
    return f"{value:.3g}"


def _gpus(pool: Pool) -> str:
    return str(pool.gpus) if pool.unit == 1 else f"{pool.gpus} ({pool.gpus // pool.unit} x {pool.unit})"
