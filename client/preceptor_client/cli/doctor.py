"""`preceptor doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.markup import escape
from rich.table import Column, Table

from preceptor_client.calls import Service, endpoint
from preceptor_client.cli.common import settings_with, stdout
from preceptor_client.masking import shown
from preceptor_client.sdk import PreceptorClient
from preceptor_client.settings import ClientSettings
from preceptor_client.stack import MissingProgram, find_redis_server, find_vllm, has_gpu, vllm_version

_EXAMPLES = """\b
Examples:
  preceptor doctor
  preceptor doctor --services --json"""

_EXTRAS = {
    "queue": ("redis",),
    "services": ("fastapi", "jinja2", "prometheus_client", "uvicorn"),
    "trainer": ("torch", "transformers", "datasets", "safetensors", "tokenizers"),
}
_MEMORY_GB, _DISK_GB = 8, 6

Grade = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do, empty if there is nothing to do."""

    name: str
    grade: Grade
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", epilog=_EXAMPLES)(doctor)


def doctor(
    services: Annotated[bool, typer.Option("--services", help="Services that do not answer are a failure.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Check this machine; exit status 1 if something that is needed does not work."""
    settings = settings_with()
    checks = [*check_machine(), *check_programs(), *check_extras(), *check_services(settings, services)]
    if as_json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        colours = {"ok": "green", "warning": "yellow", "failure": "red"}
        table = Table("check", "", Column("found", overflow="fold"), "what to do")
        for check in checks:
            colour = colours[check.grade]
            table.add_row(check.name, f"[{colour}]{check.grade}[/]", escape(check.found), escape(check.advice))
        stdout.print(table)
    if any(check.grade == "failure" for check in checks):
        raise typer.Exit(1)


def check_machine() -> Iterator[Check]:
    """Python, memory, disk, GPU."""
    version = platform.python_version()
    if sys.version_info[:2] == (3, 11):
        yield Check("python", "ok", version)
    else:
        yield Check("python", "warning", version, "the CPU build of vLLM needs Python 3.11")
    memory = available_memory_gb()
    yield _at_least(
        "memory", memory, _MEMORY_GB, "stop other programs: a nano teacher takes about 2 GB, training the same"
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield _at_least("disk", free, _DISK_GB, f"make room under {Path.cwd()}: the environment takes 3 GB, runs some more")
    yield Check("gpu", "ok", "an NVIDIA driver answers" if has_gpu() else "none, everything runs on the CPU")


def available_memory_gb() -> float:
    """Memory that programs could still take, in GB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def check_programs() -> Iterator[Check]:
    """redis-server and vLLM."""
    yield _program("redis-server", find_redis_server)
    yield _program("vllm", lambda: f"{find_vllm()} {vllm_version(find_vllm())}")


def check_extras() -> Iterator[Check]:
    """Which parts of Preceptor are installed; only the client is needed everywhere."""
    for extra, modules in _EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            found = f"{', '.join(missing)} not installed"
            yield Check(f"extra {extra}", "warning", found, f"pip install 'preceptor[{extra}]' to use it here")
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def check_services(settings: ClientSettings, needed: bool) -> Iterator[Check]:
    """Whether the services and the queue's Redis answer."""
    grade: Grade = "failure" if needed else "warning"
    with PreceptorClient(settings=settings) as client:
        for service in get_args(Service):
            url, health = endpoint(settings, service), client.health(service)
            if health.status == "ok":
                yield Check(service, "ok", f"ready at {url}")
            else:
                advice = f"start it (`preceptor up`), or set PRECEPTOR_{service.upper()}_URL"
                yield Check(service, grade, f"{url}: {health.status} {health.detail or ''}".strip(), advice)
    yield from check_queue(settings.redis_url, grade)


def check_queue(url: str, grade: Grade) -> Iterator[Check]:
    """Whether the Redis at `url` can hold the queue, and will still hold it after a crash."""
    try:
        from preceptor_client.queue import QueueMisfit, QueueUnavailable, check_redis, connect
    except ModuleNotFoundError:
        yield Check(
            "redis", "warning", "not looked at without redis-py", "pip install 'preceptor[queue]' to use it here"
        )
        return

    async def ask() -> list[str]:
        async with connect(url) as redis:
            return await check_redis(redis)

    try:
        warnings = asyncio.run(ask())
    except QueueUnavailable as error:
        yield Check("redis", grade, f"{shown(url)}: {error}", "start it (`preceptor up`), or set PRECEPTOR_REDIS_URL")
    except QueueMisfit as error:
        yield Check("redis", grade, f"{shown(url)}: {error}", "set PRECEPTOR_REDIS_URL")
    else:
        yield Check("redis", "ok", f"ready at {shown(url)}")
        for warning in warnings:
            found, _, advice = warning.rpartition(": ")
            yield Check("redis", "warning", found, advice)


def _at_least(name: str, gigabytes: float, needed: float, advice: str) -> Check:
    found = f"{gigabytes:.1f} GB free"
    return Check(name, "ok", found) if gigabytes >= needed else Check(name, "warning", found, advice)


def _program(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", find())
    except MissingProgram as error:
        return Check(name, "failure", "not found", str(error))
