"""A training run of a tiny policy on random words, in this process or as the command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from preceptor_client.masking import REVEALED
from preceptor_trainer.config import TrainConfig
from tiny_policy import save_policy

Build = Callable[..., TrainConfig]


def tiny_run(folder: Path, redis_url: str) -> Build:
    """`build(section={...}, key=...)`: the run with these changes."""
    save_policy(folder / "policy", scale=0.02)
    documents = folder / "documents.jsonl"
    lines = [{"text": " ".join(f"w{(7 * i + 11 * j) % 58 + 2}" for j in range(24))} for i in range(200)]
    documents.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def build(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "run": "test",
            "out": folder / "out",
            "steps": 6,
            "cohorts_per_step": 4,
            "model": {"path": str(folder / "policy")},
            "data": {"path": str(documents), "prefix_tokens": 8, "suffix_tokens": 6},
            "pool": {"rollouts": 3},
            "judge": {"redis_url": redis_url, "axes": {"quality": 1.0}},
            "optimizer": {"lr": 3e-3, "schedule": "constant"},
        }
        for name, change in changes.items():
            values[name] = {**values[name], **change} if isinstance(values.get(name), dict) else change
        return TrainConfig.model_validate(values)

    return build


def metrics(config: TrainConfig) -> list[dict[str, Any]]:
    """The lines that are complete."""
    path = config.out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def config_file(config: TrainConfig) -> Path:
    """`train.yaml` beside the run's folder, secrets among it."""
    file = config.out.parent / "train.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", context=REVEALED)))
    return file


async def start_command(config: TrainConfig, *arguments: str) -> asyncio.subprocess.Process:
    """`preceptor_trainer train`, whose output is kept."""
    file = config_file(config)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "preceptor_trainer",
        "train",
        str(file),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def finished(command: asyncio.subprocess.Process) -> str:
    """Its output; it must have ended well."""
    output, _ = await asyncio.wait_for(command.communicate(), 120)
    assert command.returncode == 0, output.decode()
    return output.decode()


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what another process does, of which no event tells."""
    async with asyncio.timeout(150):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)
