"""`python -m preceptor_services judge|rewrite|worker`: one service as a process.

In: a YAML file, the environment and `--a.b=c` (see `settings`). Ends with status 0 after SIGTERM or SIGINT, with 2
and one clear line when it cannot start. Logs to stderr (see `logs`).

Judge and rewrite listen beyond loopback only if they ask for keys. The worker may: its port has health and metrics, no
texts and nothing that makes work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from preceptor_client import tracing
from preceptor_client.config import ConfigError, load_config
from preceptor_client.keys import KeysError
from preceptor_client.queue import QueueMisfit
from preceptor_client.rubrics import RubricError
from preceptor_services.logs import set_up
from preceptor_services.serving import ServingError, is_loopback, listen, serve, stop_on_signals
from preceptor_services.settings import ENV_PREFIX, ServiceSettings

_EXAMPLE = """examples:
  python -m preceptor_services judge --port 8101 --engine.urls=http://127.0.0.1:8000
  python -m preceptor_services judge --host 0.0.0.0 --auth.keys_file=keys.yaml
  python -m preceptor_services rewrite --port 8102 --config services.yaml
  python -m preceptor_services worker --queue.url=redis://127.0.0.1:6379/0 --queue.concurrency=16

Every setting can be given in the YAML file, as --section.key=value, or in the environment as
PRECEPTOR_SERVICE_SECTION__KEY; the command line wins."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one service until it is told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m preceptor_services", epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("service", choices=("judge", "rewrite", "worker"))
    parser.add_argument("--host", default="127.0.0.1", help="address of judge or rewrite (default: loopback)")
    parser.add_argument("--port", type=int, default=None, help="port of judge (default 8101) or rewrite (default 8102)")
    parser.add_argument("--config", type=Path, default=None, help="YAML file with settings")
    options, overrides = parser.parse_known_args(arguments)
    try:
        settings = load_config(ServiceSettings, options.config, overrides, env_prefix=ENV_PREFIX)
        set_up(settings.log)
        with tracing.running(settings.tracing, f"preceptor-{options.service}"):
            if options.service == "worker":
                uvloop.run(_work(settings))
            else:
                port = options.port or {"judge": 8101, "rewrite": 8102}[options.service]
                uvloop.run(_serve(options.service, settings, options.host, port))
    except (ConfigError, KeysError, QueueMisfit, RubricError, ServingError, tracing.TracingUnavailable) as error:
        print(f"{options.service}: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve(service: str, settings: ServiceSettings, host: str, port: int) -> None:
    from preceptor_services.app import judge_app, rewrite_app

    if settings.auth.keys_file is None and not is_loopback(host):
        raise ServingError(
            f"--host {host} can be reached from other machines, and no API key is asked for. Make one with "
            "`preceptor keys add NAME --file keys.yaml` and give --auth.keys_file=keys.yaml, or listen at 127.0.0.1"
        )
    app = judge_app(settings) if service == "judge" else rewrite_app(settings)
    await serve(app, listen(host, port), stop_on_signals())


async def _work(settings: ServiceSettings) -> None:
    from preceptor_services.work import work

    await work(settings, stop_on_signals())


if __name__ == "__main__":
    sys.exit(main())
