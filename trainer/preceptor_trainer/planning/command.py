"""`preceptor plan CONFIG`: from files and arguments to tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.config import ConfigError, load_config
from preceptor_trainer import config as training
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.endings import failed
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.planning.estimates import estimates
from preceptor_trainer.planning.plan import Plan, make_plan
from preceptor_trainer.planning.settings import ENV_PREFIX, PlanSettings

_OWN = "--plan."


def plan(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    settings: Annotated[Path | None, typer.Option("--plan", help="Models, hardware and sizes, YAML.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of benchmark results (default: benchmarks/results, if it is here).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
) -> None:
    """Tokens, FLOPs, GPUs, memory and hours of the run that CONFIG describes; nothing is started or downloaded.

    Any key of CONFIG can be set as --section.key=value, any of the plan's as --plan.key=value.
    """
    from preceptor_trainer.planning import show

    try:
        of_plan = [f"--{each.removeprefix(_OWN)}" for each in context.args if each.startswith(_OWN)]
        rest = [each for each in context.args if not each.startswith(_OWN)]
        run = load_config(TrainConfig, config, rest, env_prefix=training.ENV_PREFIX)
        settled = load_config(PlanSettings, settings, of_plan, env_prefix=ENV_PREFIX)
        made = made_plans(run, settled, results or Path("benchmarks/results"))
    except ConfigError as error:
        raise failed("plan", str(error), 2) from None
    except TrainError as error:
        raise failed("plan", one_line(str(error)), 1) from None
    wanted, others = made[0], made[1:]
    for trouble in show.troubles(wanted):
        typer.echo(f"preceptor plan: {trouble}", err=True)
    if as_json:
        typer.echo(json.dumps(show.as_json(wanted)))
        return
    shown = [*show.tables(wanted), show.scaling(others)]
    if markdown:
        typer.echo(show.as_markdown(shown), nl=False)
    else:
        from rich.console import Console

        Console().print(show.for_terminal(shown))


def made_plans(run: TrainConfig, settings: PlanSettings, results: Path) -> Sequence[Plan]:
    """The plan, then the same on other numbers of GPUs, ascending."""
    shares = estimates(settings.estimates, results if results.is_dir() else None)
    plans = [make_plan(run, settings, shares)]
    for gpus in (settings.gpus // 4, settings.gpus // 2, settings.gpus, 2 * settings.gpus, 4 * settings.gpus):
        try:
            plans.append(make_plan(run, settings.model_copy(update={"gpus": gpus}), shares))
        except TrainError:  # too few to begin with: a row less
            continue
    return plans
