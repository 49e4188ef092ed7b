"""An update of a policy from scratch: tokens a second, and the share of the machine that it uses.

    preceptor bench scale --json
    preceptor bench scale --device cuda --width 768 --layers 12 --vocabulary 4096 --prefix 480 --suffix 32 \\
        --candidates 16 --cohorts 64 --micro-cohorts 16

The trainer's own `Learner` on a randomly initialised Llama: GRPO, forward, backward, clipping and AdamW, on the same
random cohorts in four ways:

- `naive`: every candidate with its prefix in a row of its own.
- `shared`: each cohort's prefix computed once.
- `checkpointed`: `shared` with `compute.activation_checkpointing`.
- `compiled`: `shared` with `compute.compile`; its compiling is not counted.

`--precision` is that of all sides: bfloat16 on a GPU, float32 on a CPU, where few have units for less.

The sides run in turn, medians. `tokens_per_s` are suffix tokens, those that are trained on: the same for every side, so
that sides can be compared. `mfu` is what the machine is used for: FLOPs that the side's way needs (layers, attention to
what a token sees, output weights where a suffix token is predicted; three forward passes' worth; what is computed a
second time by checkpointing does not count) over seconds, as a share of the machine's FLOP/s. These, the limit, are
from the data sheet of a known GPU, else those of the largest product of two square matrices, measured before.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measuring.result import Result, Table, finish, parser
from benchmarks.measuring.sides import interleaved, medians
from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ComputeConfig, ObjectiveConfig, OptimizerConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.learner import Learner
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.planning.hardware import GPUS
from preceptor_trainer.planning.models import ModelSizes, Span, forward_flops

FORWARDS = 3
"""What an update takes, in forward passes: the way back is two."""


def llama(options: argparse.Namespace) -> Any:
    """Of random weights, the same every time."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=options.vocabulary,
            hidden_size=options.width,
            intermediate_size=4 * options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=max(1, options.width // 64),
            max_position_embeddings=options.prefix + options.suffix,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).to(options.device)


def sizes(model: Any) -> ModelSizes:
    """Of `model`."""
    config = model.config
    return ModelSizes(
        name="policy",
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        mlp=config.intermediate_size,
        vocab=config.vocab_size,
    )


def cohorts(options: argparse.Namespace) -> list[PolicyCohort]:
    """Random tokens and scores."""
    dice = random.Random(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(dice.choices(range(options.vocabulary), k=length))

    made = []
    for number in range(options.cohorts):
        candidates = tuple(
            TokenCandidate(f"rollout-{index}", Origin.ROLLOUT, text(options.suffix), "", (-8.0,) * options.suffix)
            for index in range(options.candidates)
        )
        scores = {candidate.id: dice.random() for candidate in candidates}
        judged = Judged(scores, {}, candidates[0], candidates[1])
        window = Window(0, number, text(options.prefix), candidates[0].ids)
        made.append(PolicyCohort(window.id, window, 0, candidates, judged))
    return made


def ways(options: argparse.Namespace) -> dict[str, ComputeConfig]:
    """Of the sides."""
    plain = ComputeConfig(
        micro_cohorts=options.micro_cohorts,
        precision=options.precision or ("bfloat16" if options.device == "cuda" else "float32"),
    )
    sides = {
        "naive": plain.model_copy(update={"shared_prefix": "off"}),
        "shared": plain,
        "checkpointed": plain.model_copy(update={"activation_checkpointing": True}),
    }
    if options.compile and shutil.which("g++"):
        sides["compiled"] = plain.model_copy(update={"compile": True})
    return sides


def flops(options: argparse.Namespace, model: ModelSizes, *, shared: bool) -> float:
    """That an update needs."""
    rows = options.cohorts * options.candidates
    if shared:
        spans = [Span(options.cohorts, options.prefix), Span(rows, options.suffix, options.prefix, options.suffix)]
    else:
        spans = [Span(rows, options.prefix + options.suffix, logits=options.suffix)]
    return FORWARDS * forward_flops(model, spans)


def limit(options: argparse.Namespace, precision: str) -> tuple[float, str]:
    """The machine's FLOP/s in `precision`, and where that is from."""
    if options.device == "cuda":
        name = torch.cuda.get_device_name()
        for known, gpu in GPUS.items():
            if known in name and precision == "bfloat16":
                return gpu.flops, f"data sheet of {gpu.name}"
    side = 8192 if options.device == "cuda" else 2048
    one = torch.randn(side, side, device=options.device, dtype=getattr(torch, precision))
    seconds = []
    for _ in range(6):
        _finished(options)
        began = time.perf_counter()
        one @ one
        _finished(options)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds), f"a product of {side} x {side} matrices, measured"


def _finished(options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every side's figures."""
    batch, sides, peaks, steps = cohorts(options), ways(options), {}, {}
    objective = make_objective(ObjectiveConfig(name="grpo"), options.suffix)
    model = sizes(llama(options))
    for name, compute in sides.items():
        learner = Learner(llama(options), objective, OptimizerConfig(lr=1e-5, schedule="constant"), compute, 10**6)

        def step(learner: Learner = learner, name: str = name) -> None:
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            learner.update(batch)
            _finished(options)
            if options.device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30

        steps[name] = step
    print(f"measuring {', '.join(steps)}", file=sys.stderr)
    seconds = medians(interleaved(steps, options.rounds))
    precision = sides["naive"].precision
    best, source = limit(options, precision)
    suffix_tokens = options.cohorts * options.candidates * options.suffix
    figures = []
    for name in sides:
        needed = flops(options, model, shared=name != "naive")
        figures.append(
            {
                "side": name,
                "seconds": seconds[name],
                "tokens_per_s": suffix_tokens / seconds[name],
                "speedup": seconds["naive"] / seconds[name],
                "flops": needed,
                "mfu": needed / seconds[name] / best,
                **({"peak_gib": peaks[name]} if peaks else {}),
            }
        )
    return {
        "sides": figures,
        "parameters": sum(weights.numel() for weights in llama(options).parameters()),
        "precision": precision,
        "limit": {"flops": best, "from": source},
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        **{
            name: getattr(options, name)
            for name in ("width", "layers", "vocabulary", "prefix", "suffix", "candidates", "cohorts", "rounds")
        },
        "micro_cohorts": options.micro_cohorts or options.cohorts,
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """For docs/benchmarks.md."""
    model = f"Llama of {result['parameters'] / 1e6:.1f} M parameters, vocabulary {result['vocabulary']}"
    work = f"{result['cohorts']} cohorts of {result['candidates']}, {result['prefix']}+{result['suffix']} tokens"
    updates = Table(
        f"An update: {model}; {work}; {result['precision']}, {result['device']}, {result['threads']} threads",
        ("side", "seconds", "suffix tokens/s", "over naive", "GFLOP", "MFU", "peak GiB"),
        [
            [
                side["side"],
                side["seconds"],
                side["tokens_per_s"],
                side["speedup"],
                side["flops"] / 1e9,
                side["mfu"],
                side.get("peak_gib", "not measured"),
            ]
            for side in result["sides"]
        ],
    )
    machine = [[result["precision"], result["limit"]["flops"] / 1e9, result["limit"]["from"]]]
    return [updates, Table("The machine", ("precision", "GFLOP/s", "from"), machine)]


def main() -> None:
    """Parse the arguments, measure, print."""
    made = parser(__doc__, "scale")
    made.add_argument("--width", type=int, default=256, help="of the model")
    made.add_argument("--layers", type=int, default=4)
    made.add_argument("--vocabulary", type=int, default=4096)
    made.add_argument("--prefix", type=int, default=240, help="tokens")
    made.add_argument("--suffix", type=int, default=16, help="tokens")
    made.add_argument("--candidates", type=int, default=8, help="of a cohort")
    made.add_argument("--cohorts", type=int, default=6, help="of an update")
    made.add_argument("--micro-cohorts", type=int, help="of a forward pass (default: all of them)")
    made.add_argument("--rounds", type=int, default=3, help="of all sides in turn")
    made.add_argument("--precision", choices=["float32", "bfloat16"])
    made.add_argument("--no-compile", dest="compile", action="store_false", help="leave `compiled` out")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = made.parse_args()
    finish(Result("scale", measure(options)), options)


if __name__ == "__main__":
    main()
