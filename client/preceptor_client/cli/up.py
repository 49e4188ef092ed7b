"""`preceptor up`: Redis, a teacher on vLLM, the services and workers on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from preceptor_client.cli.common import CommandError, stderr, stdout
from preceptor_client.cli.trainer import trainer_command
from preceptor_client.stack import Endpoints, Part, Ports, PortTaken, Stack, claim_port, sole_use, start_local_stack

_EXAMPLES = """\b
Examples:
  preceptor up --nano
  preceptor up --teacher Qwen/Qwen3-4B-Instruct-2507 --rubrics instruct --max-model-len 8192
  preceptor up --teacher ./my-teacher --judge-port 9001 --workers 2"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", epilog=_EXAMPLES)(up)


def up(
    teacher: Annotated[str | None, typer.Option(help="Model directory, or a name that vLLM can load.")] = None,
    nano: Annotated[bool, typer.Option("--nano", help="The nano teacher (trained on first use, minutes).")] = False,
    rubrics: Annotated[str | None, typer.Option(help="nano, instruct or a folder. [default: by the teacher]")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Judge workers on the queue.")] = 1,
    folder: Annotated[Path, typer.Option("--dir", help="For Redis' data and all logs.")] = Path("runs/up"),
    max_model_len: Annotated[int | None, typer.Option(help="Longest prompt with answer, in tokens.")] = None,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 6379,
    teacher_port: Annotated[int, typer.Option(min=0, max=65535)] = 8100,
    judge_port: Annotated[int, typer.Option(min=0, max=65535)] = 8101,
    rewrite_port: Annotated[int, typer.Option(min=0, max=65535)] = 8102,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON when everything is ready.")] = False,
) -> None:
    """Run the service side of Preceptor without Docker; everything stops together."""
    if nano == (teacher is not None):
        raise CommandError("up needs a teacher: either --teacher DIR_OR_NAME or --nano")
    if teacher and teacher.startswith(("/", ".", "~")) and not Path(teacher).is_dir():
        raise CommandError(f"--teacher {teacher}: no such folder")
    ports = Ports(redis_port, teacher_port, judge_port, rewrite_port)
    with sole_use(folder), Stack() as stack:
        for name, port in asdict(ports).items():
            try:
                claim_port(port)  # told now, and not when a teacher has loaded for minutes
            except PortTaken as taken:
                raise CommandError(f"{taken} (--{name}-port)") from None
        model = teacher or nano_teacher()
        endpoints = start_local_stack(
            stack,
            folder,
            model,
            model="nano-teacher" if nano else Path(model).name,
            rubrics=rubrics or ("nano" if nano else "instruct"),
            ports=ports,
            workers=workers,
            max_model_len=512 if nano and max_model_len is None else max_model_len,
            on_change=_show,
        )
        if as_json:
            print(json.dumps(asdict(endpoints)), flush=True)
        else:
            stdout.print(_table(endpoints, folder))
        try:
            stack.wait()
        finally:
            stderr.print("stopping: vLLM takes some seconds")


def nano_teacher() -> str:
    """The directory of the nano teacher, which the trainer makes on first use. Its progress goes to stderr."""
    command = trainer_command(["nano-teacher"])
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise CommandError(f"the nano teacher could not be made (status {result.returncode})")
    return result.stdout.split("\n")[-2].strip() if result.stdout.endswith("\n") else result.stdout.strip()


def _show(part: Part, ready: bool) -> None:
    stderr.print(
        f"{part.name}: {'ready at ' + (part.url or '-') if ready else f'starting, log {part.log}'}", soft_wrap=True
    )


def _table(endpoints: Endpoints, folder: Path) -> Table:
    table = Table("part", "url", title="Preceptor is up; Ctrl-C stops it", caption=f"data and logs in {folder}")
    table.add_row("dashboard", f"{endpoints.judge_url}/")
    table.add_row("judge", f"{endpoints.judge_url}/docs")
    table.add_row("rewrite", f"{endpoints.rewrite_url}/docs")
    table.add_row("queue", endpoints.redis_url)
    table.add_row(f"teacher ({endpoints.model})", endpoints.teacher_url)
    for url in endpoints.worker_metrics_urls:
        table.add_row("worker", f"{url}/metrics")
    return table
