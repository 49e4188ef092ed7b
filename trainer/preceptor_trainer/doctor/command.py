"""`preceptor doctor CONFIG`: from a file and arguments to a table, or JSON, and an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.checks import report
from preceptor_client.config import ConfigError, load_config
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.endings import INTERRUPTED, failed

EXAMPLES = """\b
Examples:
  preceptor doctor configs/sip.yaml --model.path=HuggingFaceTB/SmolLM2-135M
  preceptor doctor configs/policies/smollm2-135m.yaml --no-services --json"""


def doctor(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    services: Annotated[
        bool, typer.Option("--services/--no-services", help="Whether Redis, workers and servers are looked at.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Whether the run of CONFIG can start: model, memory, documents, services, and one real cohort judged.

    Any key of CONFIG can be set as --section.key=value. Exit status 1 if something fails.
    """
    try:
        run = load_config(TrainConfig, config, context.args, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        raise failed("doctor", error, 2) from None
    # Late: torch takes seconds to import, and a wrong configuration should be told at once.
    from preceptor_trainer.doctor.examine import examine

    try:
        status = report(examine(run, services=services), as_json=as_json)
    except KeyboardInterrupt:
        raise failed("doctor", "stopped by SIGINT", INTERRUPTED) from None
    raise typer.Exit(status)
