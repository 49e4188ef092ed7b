"""The processes: an engine, our judge service and LiteLLM's proxy in front of it, one worker each.

In: a folder for logs and configuration, and the key that both gateways ask for (LiteLLM does not start without one).
Out: parts for a `Stack`. LiteLLM is set up as its guide to production says: production mode, errors only in the log, no
debugging, no database; its table of prices is the one in its package, and it may open as many connections to the engine
as we may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gateway_parts.upstream import MODEL
from benchmarks.measuring.peers import peers
from preceptor_client.stack import Part, claim_port, http_probe, judge_part

CONNECTIONS = 1024
"""To the engine, at most, of either gateway."""
_ROOT = Path(__file__).parents[2]


def upstream_part(folder: Path, latency_ms: float) -> Part:
    """The engine."""
    port = claim_port()
    url = f"http://127.0.0.1:{port}"
    module = "benchmarks.gateway_parts.upstream"
    return Part(
        name="engine",
        command=(sys.executable, "-m", module, "--port", str(port), "--latency-ms", str(latency_ms)),
        log=folder / "engine.log",
        env={"PYTHONPATH": str(_ROOT)},
        probe=http_probe(f"{url}/v1/models"),
        url=url,
    )


def preceptor_part(folder: Path, engine: str, keys_file: Path) -> Part:
    """Our judge service, with both packaged sets of rubrics."""
    overrides = (f"--engine.concurrency={CONNECTIONS}", "--web.max_waiting=4096", f"--auth.keys_file={keys_file}")
    return judge_part(folder, engine, MODEL, rubrics="nano,instruct", overrides=overrides)


def litellm_part(folder: Path, engine: str, key: str) -> Part:
    """LiteLLM's proxy."""
    port = claim_port()
    url = f"http://127.0.0.1:{port}"
    model = {"model": f"openai/{MODEL}", "api_base": f"{engine}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = (str(peers() / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port))
    return Part(
        name="litellm",
        command=(*command, "--num_workers", "1"),
        log=folder / "litellm.log",
        env={
            "LITELLM_MASTER_KEY": key,
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "AIOHTTP_CONNECTOR_LIMIT": str(CONNECTIONS),
            "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": str(CONNECTIONS),
        },
        probe=http_probe(f"{url}/health/liveliness"),
        url=url,
    )


def litellm_version() -> str:
    """As pip says it in the peers' environment."""
    said = subprocess.run([str(peers() / "pip"), "show", "litellm"], capture_output=True, text=True, check=False).stdout
    return next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("Version"))


def processor_s(pid: int) -> float:
    """Processor time that a process and its children have used so far."""
    return sum(_own_s(each) for each in (pid, *_descendants(pid)))


def _own_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _descendants(child)
