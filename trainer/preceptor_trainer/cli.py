"""`python -m preceptor_trainer`: the trainer's commands. Arguments in, exit status out; errors are one line on
stderr.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from preceptor_client.config import ConfigError, dump_config, load_config
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.doctor.command import EXAMPLES as DOCTOR_EXAMPLES
from preceptor_trainer.doctor.command import doctor
from preceptor_trainer.endings import DRIFTED, INTERRUPTED, failed
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.evaluation.command import EXAMPLES, evaluate
from preceptor_trainer.nano import DEFAULT_CACHE
from preceptor_trainer.planning.command import plan
from preceptor_trainer.study.command import study
from preceptor_trainer.teach.command import app as teach

app = typer.Typer(
    help="Train, evaluate and demonstrate.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.callback()
def _commands() -> None:
    """Keeps the commands named even while there is only one."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="""\b
Examples:
  preceptor train configs/sip.yaml --steps=100 --optimizer.lr=1e-4 --dry-run
  preceptor train configs/sip.yaml --checkpoint.every=50 --resume
  torchrun --nproc-per-node 8 -m preceptor_trainer train configs/sip.yaml""",
)
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in out.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Replace the run that is in out.")] = False,
) -> None:
    """Train a policy as CONFIG says; any key can be set as --section.key=value."""
    if _rank():
        _follow()
        return
    if resume and restart:
        raise failed("train", "--resume goes on with a run and --restart replaces it: give one of them", 2)
    try:
        resolved = load_config(TrainConfig, config, context.args, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        raise failed("train", error, 2) from None
    if dry_run:
        typer.echo(dump_config(resolved), nl=False)
        return
    # Late: torch takes seconds to import, and a wrong configuration should be told at once.
    from preceptor_trainer.guards.watch import Drifted
    from preceptor_trainer.run import train as run

    try:
        stopped_by = run(resolved, "resume" if resume else "restart" if restart else "fresh")
    except Drifted as drifted:
        raise failed("train", f"stopped by {drifted}; --resume goes on with it", DRIFTED) from None
    except TrainError as error:
        raise failed("train", one_line(str(error)), 1) from None
    except KeyboardInterrupt:
        raise failed("train", "stopped by SIGINT", INTERRUPTED) from None
    if stopped_by is not None:
        raise failed("train", f"stopped by {stopped_by.name}; --resume goes on with it", 128 + stopped_by)
    typer.echo(f"{resolved.run}: done, the policy is in {resolved.out / 'final'}", err=True)


app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="""\b
Examples:
  preceptor plan configs/paper.yaml --plan configs/plans/gpt-oss-120b.yaml
  preceptor plan configs/sip.yaml --plan configs/plans/judge-8b.yaml --plan.gpu=H200 --plan.gpus=32 --json""",
)(plan)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, epilog=DOCTOR_EXAMPLES)(doctor)
app.add_typer(teach, name="teach")

app.command(
    epilog="""\b
Examples:
  preceptor study
  preceptor study main --seeds 3
  preceptor study rollouts --tiny --seeds 1 --out runs/tiny"""
)(study)


app.command("eval", epilog=EXAMPLES)(evaluate)


@app.command("nano-teacher", epilog="Example: preceptor up --nano (which calls this)")
def nano_teacher(
    cache: Annotated[Path, typer.Option(help="Where it is kept.")] = DEFAULT_CACHE,
) -> None:
    """Train the nano teacher if the cache does not hold it; its directory is the last line on stdout."""
    from rich.console import Console
    from rich.progress import Progress

    from preceptor_trainer.nano.teacher import ensure_teacher

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("nano teacher", total=None, visible=False)  # one that is there takes no time
        directory = ensure_teacher(
            cache, progress=lambda done, total: progress.update(bar, completed=done, total=total, visible=True)
        )
    typer.echo(directory)


@app.command("nano-prepare", epilog="Example: preceptor nano-prepare --out models")
def nano_prepare(
    out: Annotated[Path, typer.Option(help="Folder for teacher, policy, corpora and base model.")],
    seed: Annotated[int, typer.Option(help="Of corpora and base model.")] = 0,
    pretrain_steps: Annotated[int | None, typer.Option(min=1, help="Updates of the base model.")] = None,
    cache: Annotated[Path, typer.Option(help="Where the nano teacher is kept.")] = DEFAULT_CACHE,
) -> None:
    """Make what servers and a trainer need for the demo's run, as `docker compose up` does. Made once, then found."""
    from dataclasses import replace

    from preceptor_trainer.demo.plan import DemoSize
    from preceptor_trainer.demo.prepare import prepare_run

    size = DemoSize() if pretrain_steps is None else replace(DemoSize(), pretrain_steps=pretrain_steps)

    def tell(stage: str, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            typer.echo(f"nano-prepare: {stage}: {done} of {total} steps", err=True)

    try:
        prepare_run(out, cache, size, seed=seed, progress=tell)
    except OSError as error:
        raise failed("nano-prepare", f"cannot write to {out} or {cache}: {error.strerror or error}", 1) from None
    typer.echo(f"nano-prepare: {out} holds all that a run needs", err=True)


@app.command("export-policy", epilog="Example: preceptor export-policy HuggingFaceTB/SmolLM2-135M --out models/policy")
def export_policy(
    model: Annotated[str, typer.Argument(help="A Hugging Face directory or name: model.path of the run.")],
    out: Annotated[Path, typer.Option(help="The folder that is written.")],
) -> None:
    """Write the folder that the vLLM server of a run with rollouts.engine=vllm is started from."""
    from preceptor_trainer.pretrained import load_pretrained
    from preceptor_trainer.rollouts.vllm_engine import export_for_vllm

    try:
        typer.echo(export_for_vllm(*load_pretrained(model, "the policy", key="MODEL"), out))
    except (TrainError, OSError) as error:
        raise failed("export-policy", one_line(str(error)), 1) from None


@app.command("nano-world", epilog="Example: preceptor nano-world --out runs/nano-100m-start")
def nano_world(
    out: Annotated[Path, typer.Option(help="Folder for corpus.jsonl, held-out.jsonl and policy.")],
    texts: Annotated[int, typer.Option(min=1, help="In the corpus.")] = 200_000,
    people: Annotated[int, typer.Option(min=1, help="In a text; about 30 words each.")] = 20,
    width: Annotated[int, typer.Option(min=64, help="Of the policy, a multiple of 64.")] = 768,
    layers: Annotated[int, typer.Option(min=1, help="Of the policy.")] = 14,
    seed: Annotated[int, typer.Option(help="Of texts and weights.")] = 0,
) -> None:
    """Write the nano world with long texts, and a policy of about 100 M parameters that has learned nothing yet."""
    from preceptor_trainer.nano.large import LargeSize, write_large_world

    if width % 64:
        raise failed("nano-world", f"--width {width} is no multiple of 64", 2)
    size = LargeSize(texts=texts, people=people, width=width, layers=layers)
    try:
        typer.echo(write_large_world(out, size, seed=seed))
    except OSError as error:
        raise failed("nano-world", f"cannot write to {out}: {error.strerror or error}", 1) from None


@app.command(epilog="Example: preceptor demo --report runs/demo --seed 1")
def demo(
    report: Annotated[Path, typer.Option(help="Folder for the report and everything made on the way.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of corpora, models and sampling.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of each training run.")] = None,
    cache: Annotated[Path, typer.Option(help="Where the nano teacher is kept.")] = DEFAULT_CACHE,
) -> None:
    """Show the whole method on the nano world: about ten minutes on two cores, nothing needed but this machine."""
    from dataclasses import replace

    from rich.console import Console

    from preceptor_client.stack import FolderInUse, MissingProgram, PartFailed
    from preceptor_trainer.demo.demo import Demo
    from preceptor_trainer.demo.plan import DemoSize

    size = DemoSize() if steps is None else replace(DemoSize(), steps=steps)
    try:
        written = Demo(report, cache, size, seed=seed, console=Console()).run()
    except (FolderInUse, MissingProgram, PartFailed, OSError) as error:
        typer.echo(f"preceptor demo: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("preceptor demo: stopped; nothing is left running", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"The report is {written}")


def _rank() -> int:
    """Of this process in its run; 0 for one that torchrun did not start."""
    return int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0


def _follow() -> None:
    """A rank that torchrun started beside rank 0, which prints and fails for all of them."""
    from preceptor_trainer.ranks import RankLost
    from preceptor_trainer.run import follow

    try:
        follow()
    except RankLost:
        raise typer.Exit(1) from None
    except (TrainError, RuntimeError) as error:
        raise failed("train", f"rank {_rank()}: {one_line(str(error))}", 1) from None


def main() -> None:
    """Entry point."""
    app(prog_name="preceptor")
