"""What `preceptor doctor` finds, of a machine or of a training configuration, and how it is told.

In: what was looked at. Out: `Check`s, as a table or one line of JSON on stdout, and an exit status. `check_queue` may
wait some seconds for a Redis; nothing is raised for what is found to be wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from preceptor_client.masking import shown

Grade = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do, empty if there is nothing to do."""

    name: str
    grade: Grade
    found: str
    advice: str = ""


def report(found: Iterable[Check], *, as_json: bool) -> int:
    """Show the checks. Returns the exit status: 1 if one is a failure."""
    checks = list(found)
    if as_json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        colours = {"ok": "green", "warning": "yellow", "failure": "red"}
        table = Table("check", "", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
        for check in checks:
            colour = colours[check.grade]
            table.add_row(check.name, f"[{colour}]{check.grade}[/]", escape(check.found), escape(check.advice))
        Console().print(table)
    return int(any(check.grade == "failure" for check in checks))


def available_memory_gb() -> float:
    """Memory that programs could still take, in GB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def check_queue(
    url: str, grade: Grade, *, key: str = "PRECEPTOR_REDIS_URL", namespace: str = "preceptor"
) -> Iterator[Check]:
    """Whether the Redis at `url` can hold the queue, and will still hold it after a crash. `key` sets the URL; one that
    cannot is a finding of `grade`."""
    try:
        from preceptor_client.queue import QueueMisfit, QueueUnavailable, check_redis, connect
    except ModuleNotFoundError:
        yield Check(
            "redis", "warning", "not looked at without redis-py", "pip install 'preceptor[queue]' to use it here"
        )
        return

    async def ask() -> list[str]:
        async with connect(url) as redis:
            return await check_redis(redis, namespace=namespace)

    try:
        warnings = asyncio.run(ask())
    except QueueUnavailable as error:
        yield Check("redis", grade, f"{shown(url)}: {error}", f"start it (`preceptor up`), or set {key}")
    except QueueMisfit as error:
        yield Check("redis", grade, f"{shown(url)}: {error}", f"set {key}")
    else:
        yield Check("redis", "ok", f"ready at {shown(url)}")
        for warning in warnings:
            found, _, advice = warning.rpartition(": ")
            yield Check("redis", "warning", found, advice)
