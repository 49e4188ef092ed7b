"""What a policy is worth that was trained on rollouts of older weights.

    preceptor bench staleness --json

The demo's run on the nano world, with its real teacher (vLLM, judge and rewrite service as processes) and the same
base model, documents, seed and number of updates, at staleness 0, 2 and 8: online DPO as in the demo, which needs no
correction, and GRPO without and with one (docs/staleness.md says which). The judge is fast, so the lag is made: a
worker gives every answer out only when S x B younger cohorts have come, so that every slot of the buffer is taken and a
batch is trained S updates after it was sampled; the staleness really seen is in the table. Then each policy continues
held-out prefixes, and the oracle, which no run has seen, scores them: means, and win rates on the sum of the axes, with
95 % intervals by bootstrap over prefixes. There is no limit to compare with but staleness 0: `dpo_kept` is the least
share of it, over the axes, that DPO keeps at 2 and 8, and `grpo_kept` the same for GRPO with the correction.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.staleness_parts.variants import BASE, Variant, kept, quality, seen
from preceptor_client.cli.up import nano_teacher
from preceptor_client.stack import Endpoints, Stack, start_local_stack, vllm_version
from preceptor_client.stack.parts import find_vllm
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, sip
from preceptor_trainer.demo.prepare import prepare_base, write_corpora
from preceptor_trainer.demo.training import continued, run_trainer
from preceptor_trainer.evaluation.nano import AXES, Comparison
from preceptor_trainer.study.held_judge import held_judge

CORRECTED = "grpo-decoupled"
VARIANTS = ("dpo@0", "dpo@2", "dpo@8", f"{CORRECTED}@0", f"{CORRECTED}@8", "grpo-none@0", "grpo-none@8")


def train(stack: Stack, endpoints: Endpoints, config: TrainConfig, hold: int) -> list[dict[str, Any]]:
    """One run, judged by a worker of its own; the lines of its metrics."""
    with held_judge(stack, endpoints, config, hold):
        run_trainer(stack, config)
    return [json.loads(line) for line in (config.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[DemoFolder]:
    """The one that was named, or one that is gone afterwards."""
    if options.folder:
        yield DemoFolder(options.folder.resolve())
    else:
        with tempfile.TemporaryDirectory() as name:
            yield DemoFolder(Path(name))


def prepared(stack: Stack, folder: DemoFolder, size: DemoSize, seed: int) -> Endpoints:
    """Corpora, the base model unless the folder has it, and the services."""
    write_corpora(folder, size, seed=seed)
    teacher = nano_teacher()
    with ThreadPoolExecutor(1) as beside:
        stop = threading.Event()
        base = None
        if not (folder.run(BASE) / "config.json").exists():
            base = beside.submit(prepare_base, folder, size, seed=seed, progress=lambda *_: None, stop=stop)
        try:
            endpoints = start_local_stack(stack, folder.services, teacher, model="nano-teacher", max_model_len=512)
            if base:
                base.result()
        except BaseException:
            stop.set()
            raise
    return endpoints


def measure(variants: Sequence[Variant], options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    size = DemoSize(steps=options.steps, held_out=options.held_out, pretrain_steps=options.pretrain_steps)
    threads = max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    transformers_logging.disable_progress_bar()
    with folder_of(options) as folder:
        measured = {}
        with Stack() as stack:
            endpoints = prepared(stack, folder, size, options.seed)
            demo = sip(
                folder,
                size,
                seed=options.seed,
                threads=threads,
                redis_url=endpoints.redis_url,
                rewrite_url=endpoints.rewrite_url,
            )
            for variant in variants:
                print(f"training {variant}", file=sys.stderr)
                hold = variant.staleness * size.cohorts_per_step
                measured[str(variant)] = seen(train(stack, endpoints, variant.of(demo), hold))
        generations = {
            name: continued(
                folder.run(name) / ("" if name == BASE else "final"),
                folder.held_out_corpus,
                size.held_out,
                seed=options.seed,
            ).generations
            for name in (BASE, *map(str, variants))
        }
    found = quality(variants, Comparison.by_oracle(generations))
    return {
        "dpo_kept": kept(found, "dpo"),
        "grpo_kept": kept(found, CORRECTED),
        "sizes": asdict(size),
        "seed": options.seed,
        "runs": {name: {**figures, **measured.get(name, {})} for name, figures in found.items()},
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """For docs/benchmarks.md."""

    def estimate(figures: dict[str, Any], name: str) -> str:
        if name not in figures:
            return "-"
        value, (low, high) = figures[name]["value"], figures[name]["ci95"]
        return f"{value:.3f} ({low:.3f} to {high:.3f})"

    runs: dict[str, dict[str, Any]] = result["runs"]
    scored = [
        (
            name,
            f"{run['staleness']['mean']:.2f}, {run['staleness']['max']}" if "staleness" in run else "-",
            *(estimate(run, axis) for axis in (*AXES, "win_rate_vs_base", "win_rate_vs_fresh")),
        )
        for name, run in runs.items()
    ]
    logged = [
        (
            name,
            *(run.get(figure, "-") for figure in ("ratio", "sampler_kl", "weight", "truncated", "masked", "clipped")),
        )
        for name, run in runs.items()
        if "staleness" in run
    ]
    sizes = result["sizes"]
    return [
        Table(
            f"By the oracle, on {sizes['held_out']} held-out prefixes after {sizes['steps']} updates of "
            f"{sizes['cohorts_per_step']} cohorts, K = {sizes['rollouts']} (95 %)",
            ("run", "staleness seen, mean, max", *AXES, "wins over base", "wins over staleness 0"),
            scored,
        ),
        Table(
            "What the objective logged, means over the updates",
            ("run", "ratio", "KL(sampler, policy)", "weight", "truncated", "masked", "clipped"),
            logged,
        ),
    ]


def main() -> None:
    """Parse the arguments, train, evaluate, print."""
    made = parser(__doc__, "staleness")
    made.add_argument("--runs", type=Variant.parse, nargs="+", default=[Variant.parse(text) for text in VARIANTS])
    made.add_argument("--steps", type=int, default=DemoSize.steps, help="updates of each run")
    made.add_argument("--pretrain-steps", type=int, default=DemoSize.pretrain_steps, help="of the base model")
    made.add_argument("--held-out", type=int, default=DemoSize.held_out, help="prefixes to continue")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--folder", type=Path, help="keep everything there; a base model in it is used again")
    options = made.parse_args()
    figures = measure(options.runs, options)
    goals = [Goal(name, figures[name], ">=", 0.95) for name in ("dpo_kept", "grpo_kept")]
    also = {"vllm": vllm_version(find_vllm())}
    finish(Result("staleness", figures, goals, also=also), options)


if __name__ == "__main__":
    main()
