"""The demo's SIP run with its real teacher, at staleness 0 and more. Everything is a process on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.overlap_parts.timing import Timing, compared
from preceptor_client.cli.up import nano_teacher
from preceptor_client.stack import Stack, start_local_stack
from preceptor_trainer.config import StalenessConfig
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, sip
from preceptor_trainer.demo.prepare import prepare_base, write_corpora
from preceptor_trainer.run import run

_PRETRAIN_STEPS = 100
"""Enough for texts that a judge can tell apart."""
_FILLING = 3


def with_nano_teacher(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of `compared`, and what they are of."""
    folder = DemoFolder(root)
    limits = [0, options.staleness]
    steps = options.teacher_steps + _FILLING + 2 * options.staleness
    size = DemoSize(pretrain_documents=4000, pretrain_steps=_PRETRAIN_STEPS, steps=steps, held_out=2)
    threads = max(1, (os.cpu_count() or 2) // 2)
    write_corpora(folder, size, seed=0)
    teacher = nano_teacher()
    timings: dict[int, list[Timing]] = {limit: [] for limit in limits}
    with Stack() as stack, ThreadPoolExecutor(1) as beside:
        base = beside.submit(prepare_base, folder, size, seed=0, progress=lambda *_: None, stop=threading.Event())
        endpoints = start_local_stack(stack, folder.services, teacher, model="nano-teacher", max_model_len=512)
        base.result()
        for number in range(options.teacher_rounds):
            for limit in limits:
                print(f"nano teacher, round {number + 1}, staleness {limit}", file=sys.stderr)
                settings = sip(
                    folder,
                    size,
                    seed=0,
                    threads=threads,
                    redis_url=endpoints.redis_url,
                    rewrite_url=endpoints.rewrite_url,
                ).model_copy(
                    update={
                        "out": root / "runs" / f"sip-{number}-{limit}",
                        "steps": options.teacher_steps + _FILLING + 2 * limit,
                        "staleness": StalenessConfig(limit=limit),
                    }
                )
                asyncio.run(run(settings))
                timings[limit].append(Timing.read(settings.out, filling=_FILLING + limit, draining=limit))
            limits.reverse()
    figures = compared(timings[0], timings[options.staleness], None)
    stages = figures["stages_s"]
    return {
        **figures,
        "speed": stages["judging"] / (stages["sampling"] + stages["updating"]),
        "cohorts_per_step": size.cohorts_per_step,
        "rollouts": size.rollouts,
        "steps": options.teacher_steps,
        "rounds": options.teacher_rounds,
    }
