"""`torchrun ... -m preceptor_trainer train`: a run over two ranks, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.run import run
from tiny_run import config_file, metrics, tiny_run, until

NLL: dict[str, Any] = {"cohorts_per_step": 3, "pool": {"rollouts": 0}, "objective": {"name": "nll"}, "threads": 1}


def child_of_rank(launcher: int, rank: int) -> int:
    """The process that `launcher` started as `rank`."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(int(pid) for pid in children if f"RANK={rank}".encode() in environment(pid))


def environment(pid: str) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


async def torchrun(config: TrainConfig) -> asyncio.subprocess.Process:
    """The command on two ranks."""
    file = config_file(config)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "preceptor_trainer", "train", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


async def test_a_rank_that_is_killed_ends_the_run_and_one_rank_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    build = tiny_run(tmp_path, "redis://127.0.0.1:1/0")
    settings = build(**NLL, steps=100_000, checkpoint={"every": 3})
    launcher = await torchrun(settings)
    await until(lambda: len(metrics(settings)) >= 8 or launcher.returncode is not None)
    assert launcher.returncode is None, (await launcher.communicate())[0].decode()
    os.kill(child_of_rank(launcher.pid, 1), signal.SIGKILL)
    output = (await asyncio.wait_for(launcher.communicate(), 60))[0].decode()
    assert launcher.returncode != 0
    assert "preceptor train: another rank of this run has ended" in output
    assert "--resume" in output
    done = len(metrics(settings))
    rest = settings.model_copy(update={"steps": done + 2})
    assert await run(rest, "resume")
    whole = rest.model_copy(update={"out": tmp_path / "whole"})
    await run(whole)
    losses, expected = ([line["loss"] for line in metrics(each)] for each in (rest, whole))
    assert len(losses) == len(expected)
    assert max(abs(one - other) for one, other in zip(losses, expected, strict=True)) < 2e-3


async def test_a_pause_of_all_ranks_ends_when_the_operator_says_so(tmp_path: Path) -> None:
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"text": " ".join(f"w{number}" for number in range(2, 26))}) + "\n")
    guard = {"path": str(held_out), "every": 1, "above": 0.1, "act_after": 4, "action": "pause"}
    settings = tiny_run(tmp_path, "redis://127.0.0.1:1/0")(**NLL, steps=5, guards={"held_out_nll": guard})
    launcher = await torchrun(settings)
    note = settings.out / "PAUSED"
    await until(lambda: note.exists() or launcher.returncode is not None)
    assert launcher.returncode is None, (await launcher.communicate())[0].decode()
    assert len(metrics(settings)) == 3
    note.unlink()
    output = (await asyncio.wait_for(launcher.communicate(), 60))[0].decode()
    assert launcher.returncode == 0, output
    assert [line["step"] for line in metrics(settings)] == [1, 2, 3, 4, 5]
