"""`preceptor doctor`: what works on this machine, what does not, and what to do about it.

With a training configuration: whether that run can start, which the trainer's own `doctor` looks at.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, get_args

import typer

from preceptor_client.calls import Service, endpoint
from preceptor_client.checks import Check, Grade, available_memory_gb, check_queue, report
from preceptor_client.cli.common import settings_with
from preceptor_client.cli.trainer import become_trainer
from preceptor_client.sdk import PreceptorClient
from preceptor_client.settings import ClientSettings
from preceptor_client.stack import MissingProgram, find_redis_server, find_vllm, has_gpu, vllm_version

_EXAMPLES = """\b
Examples:
  preceptor doctor
  preceptor doctor --services --json
  preceptor doctor configs/sip.yaml --model.path=HuggingFaceTB/SmolLM2-135M"""

_EXTRAS = {
    "queue": ("redis",),
    "services": ("fastapi", "jinja2", "prometheus_client", "uvicorn"),
    "trainer": ("torch", "transformers", "datasets", "safetensors", "tokenizers"),
}
_MEMORY_GB, _DISK_GB = 8, 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("doctor", epilog=_EXAMPLES, context_settings=passed_on)(doctor)


def doctor(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Argument(help="A run's configuration, YAML; any key can be set as --section.key=value.")
    ] = None,
    services: Annotated[
        bool | None,
        typer.Option(
            "--services/--no-services",
            help="Services that do not answer are a failure, as for a CONFIG; or are not looked at.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Check this machine, or whether the run of CONFIG can start; exit status 1 if something that is needed does not
    work."""
    if config and config.startswith("-"):
        raise typer.BadParameter(f"no such option: {config} (keys of a CONFIG follow it)")
    if config:
        options = ["--no-services"] * (services is False) + ["--json"] * as_json
        become_trainer(["doctor", config, *context.args, *options])
    settings = settings_with()
    checks = [*check_machine(), *check_programs(), *check_extras()]
    if services is not False:
        checks += check_services(settings, bool(services))
    raise typer.Exit(report(checks, as_json=as_json))


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


def _at_least(name: str, gigabytes: float, needed: float, advice: str) -> Check:
    found = f"{gigabytes:.1f} GB free"
    return Check(name, "ok", found) if gigabytes >= needed else Check(name, "warning", found, advice)


def _program(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", find())
    except MissingProgram as error:
        return Check(name, "failure", "not found", str(error))
