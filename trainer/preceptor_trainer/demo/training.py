"""One training run as a process of a stack, and what a policy then makes of held-out prefixes.

In: a `TrainConfig`; a checkpoint and a corpus. Out: files in the run's folder; windows and texts. `run_trainer` waits
for the run's end and raises `PartFailed` if it, or another part of the stack, fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_client.config import dump_config
from preceptor_client.stack import Part, Stack
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.stream import WindowStream
from preceptor_trainer.data.windows import Window
from preceptor_trainer.demo.plan import windows
from preceptor_trainer.evaluation.generation import Generation, generate
from preceptor_trainer.telemetry import METRICS_FILE

_TICK_S = 0.5
"""Between two looks at a run's metrics."""


def run_trainer(
    stack: Stack,
    config: TrainConfig,
    *,
    start: Literal["resume", "restart"] = "restart",
    on_step: Callable[[int], None] = lambda steps: None,
) -> None:
    """Train; `on_step` is told now and then how many steps are done."""
    config.out.mkdir(parents=True, exist_ok=True)
    metrics = config.out / METRICS_FILE
    if start == "restart":
        metrics.unlink(missing_ok=True)
    path = config.out / "run.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    part = Part(
        name=f"trainer ({config.run})",
        command=(sys.executable, "-m", "preceptor_trainer", "train", str(path), f"--{start}"),
        log=config.out / "train.log",
    )
    on_step(0)
    stack.run(part, on_tick=lambda: on_step(_count_lines(metrics)), every_s=_TICK_S)
    on_step(config.steps)


@dataclass(frozen=True)
class Continued:
    """A policy, the held-out windows, and what it wrote for each."""

    model: Any
    codec: Codec
    windows: list[Window]
    generations: list[Generation]
    control: str | None = None
    """The token that it was given in front of each prefix."""


def continued(checkpoint: Path, corpus: Path, count: int, *, seed: int, control: str | None = None) -> Continued:
    """What the policy in `checkpoint` makes of the first `count` windows of `corpus`, one a document."""
    codec = Codec(AutoTokenizer.from_pretrained(checkpoint))
    stream = WindowStream(windows(corpus, epochs=1), codec.encode)
    held_out = [window for window, _ in islice(stream, count)]
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    generations = generate(model, codec, held_out, control=control, seed=seed)
    return Continued(model, codec, held_out, generations, control)


def _count_lines(path: Path) -> int:
    """Lines that are complete; none before the file is there."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
