"""`preceptor demo | train | ...`: handed over to the trainer's own command line, this process becoming it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from preceptor_client.cli.common import CommandError

_HELP = {
    "demo": "The whole loop on this machine, and what it brought. Example: preceptor demo --report runs/demo",
    "train": "Train a policy as a YAML file says. Example: preceptor train configs/sip.yaml --steps=100 --dry-run",
    "plan": "GPUs, memory, hours. Example: preceptor plan configs/sip.yaml --plan configs/plans/judge-8b.yaml",
    "teach": "Post-train the teacher. Example: preceptor teach judge configs/teach/nano_judge.yaml",
    "nano-world": "Write the generated world as documents. Example: preceptor nano-world --out world",
    "nano-prepare": "Make what a run in containers needs. Example: preceptor nano-prepare --out models",
    "export-policy": "Write what a policy's vLLM starts from. Example: preceptor export-policy NAME --out policy",
    "study": "Train and measure the variants of a study on the nano world. Example: preceptor study main --seeds 3",
    "eval": "Measure a policy, by a judge or tasks. Example: preceptor eval runs/sip/final --data held-out.jsonl",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    for name, text in _HELP.items():
        app.command(name, help=text, context_settings=passed_on, add_help_option=False)(_hand_over)


def _hand_over(context: typer.Context) -> None:
    become_trainer([context.info_name or "", *context.args])


def trainer_command(arguments: Sequence[str]) -> list[str]:
    """The command that runs the trainer in this environment. Raises `CommandError` if it is not installed."""
    missing = [name for name in ("preceptor_trainer", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(f"this needs the trainer ({', '.join(missing)} not found): pip install 'preceptor[trainer]'")
    return [sys.executable, "-m", "preceptor_trainer", *arguments]


def become_trainer(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the trainer's."""
    command = trainer_command(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)
