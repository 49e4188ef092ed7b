"""`preceptor teach judge | rewriter`: arguments in; the report on stdout, exit status out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.config import ConfigError, dump_config, load_config
from preceptor_trainer.endings import INTERRUPTED, failed
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.teach.config import ENV_PREFIX, TeachConfig, TeachJudge, TeachRewriter

app = typer.Typer(help="Post-train the teacher, as judge or as rewriter.", no_args_is_help=True, rich_markup_mode=None)

_OPEN_ENDED = {"allow_extra_args": True, "ignore_unknown_options": True}

Config = Annotated[Path, typer.Argument(help="YAML; see configs/teach.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in out.")]
Restart = Annotated[bool, typer.Option("--restart", help="Replace the run that is in out.")]
AsJson = Annotated[bool, typer.Option("--json", help="The report as JSON instead of a table.")]


@app.command(
    context_settings=_OPEN_ENDED, epilog="Example: preceptor teach judge configs/teach/nano_judge.yaml --steps=100"
)
def judge(
    context: typer.Context,
    config: Config,
    dry_run: DryRun = False,
    resume: Resume = False,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Teach a judge: verdicts that are right in both orders, and safety."""
    _teach(TeachJudge, config, context.args, dry_run, resume, restart, as_json)


@app.command(
    context_settings=_OPEN_ENDED,
    epilog="Example: preceptor teach rewriter configs/teach/nano_rewriter.yaml --grading.path=runs/teach-judge/final",
)
def rewriter(
    context: typer.Context,
    config: Config,
    dry_run: DryRun = False,
    resume: Resume = False,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Teach a rewriter: copy what is good, repair what is bad."""
    _teach(TeachRewriter, config, context.args, dry_run, resume, restart, as_json)


@app.command(epilog="Example: preceptor teach nano --out runs/teach-start")
def nano(
    out: Annotated[Path, typer.Option(help="Folder for teacher, documents.jsonl, held-out.jsonl and passages.jsonl.")],
    steps: Annotated[
        int, typer.Option(min=1, help="Lessons of the teacher; the nano teacher that serves had 1400.")
    ] = 300,
    documents: Annotated[int, typer.Option(min=2, help="To teach from.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of texts and weights.")] = 0,
    policy: Annotated[
        Path | None, typer.Option(help="Checkpoint of a nano policy that the teacher begins as. [default: at random]")
    ] = None,
) -> None:
    """Write what configs/teach/nano_*.yaml start from: an under-trained nano teacher, documents, labelled passages."""
    from preceptor_trainer.nano.start import write_start

    try:
        typer.echo(write_start(out, steps=steps, documents=documents, seed=seed, policy=policy))
    except TrainError as error:
        raise failed("teach nano", one_line(str(error)), 1) from None
    except OSError as error:
        raise failed("teach nano", f"cannot write to {out}: {error.strerror or error}", 1) from None


def _teach(
    kind: type[TeachConfig], file: Path, overrides: list[str], dry_run: bool, resume: bool, restart: bool, as_json: bool
) -> None:
    name = "judge" if kind is TeachJudge else "rewriter"
    if resume and restart:
        raise failed(f"teach {name}", "--resume goes on with a run and --restart replaces it: give one of them", 2)
    try:
        config = load_config(kind, file, overrides, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        raise failed(f"teach {name}", error, 2) from None
    if dry_run:
        typer.echo(dump_config(config), nl=False)
        return
    # Late: torch takes seconds to import, and a wrong configuration should be told at once.
    from rich.console import Console

    from preceptor_trainer.teach.report import table
    from preceptor_trainer.teach.run import REPORT_FILE, Outcome, teach

    try:
        outcome = teach(config, "resume" if resume else "restart" if restart else "fresh")
    except TrainError as error:
        raise failed(f"teach {name}", one_line(str(error)), 1) from None
    except KeyboardInterrupt:
        raise failed(f"teach {name}", "stopped by SIGINT", INTERRUPTED) from None
    if not isinstance(outcome, Outcome):
        raise failed(f"teach {name}", f"stopped by {outcome.name}; --resume goes on with it", 128 + outcome)
    report = config.out / REPORT_FILE
    if as_json:
        typer.echo(report.read_text(encoding="utf-8"), nl=False)
    else:
        Console().print(table(name, outcome.before, outcome.after))
    typer.echo(f"{config.run}: the teacher is in {config.out / 'final'}, the report in {report}", err=True)
