"""Training on cohorts with each prefix computed once.

    preceptor bench shared-prefix --json
    preceptor bench shared-prefix --device cuda --dtype bfloat16 --width 2048 --layers 24 --vocabulary 32000

One micro-batch forward and backward: DPO on pairs, with its reference model's forward pass, and GRPO on groups of 16,
after prefixes of 480 and of 960 random tokens. Four sides on the same randomly initialised Llama, batch and type:

- `shared`: the trainer as it is.
- `naive`: the trainer with `compute.shared_prefix: off`: a row of prefix and suffix for each candidate, logits at the
  suffix alone.
- `trl`: TRL's own `DPOTrainer.compute_loss` and `GRPOTrainer.compute_loss`, gradient checkpointing off. On a CPU, TRL
  computes logits at every place of a row; on a GPU, as we do, at the suffix alone.

The sides run in turn, medians. Losses and gradients are compared: `max_rel_error` is the largest of every
log-probability and of the gradient (as one vector), shared against naive; `trl_rel_error` that of loss and gradient
against TRL's.
`peak_memory_ratio`: memory that a step needs at its peak, shared over naive (on a CPU, growth of resident memory).

The limit is arithmetic: `flop_ratio` counts the multiplications that each way cannot do without (the layers' matrices
for every token, attention for every pair of tokens that see each other, output weights for every suffix token), naive
over shared. `share_of_ideal` is `speedup_vs_naive` over `flop_ratio`; it can exceed 1, as rows need several times the
memory and so fit worse into caches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.measuring.sides import interleaved, medians
from benchmarks.shared_prefix_parts.case import Case, flop_ratio
from benchmarks.shared_prefix_parts.memory import peak_bytes
from benchmarks.shared_prefix_parts.sides import Ours, Side, furthest, relative, trl_side


def llama(options: argparse.Namespace) -> Any:
    """Of random weights."""
    torch.manual_seed(0)
    heads = max(2, options.width // 64)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).to(options.device, getattr(torch, options.dtype)).eval()


def measure_case(case: Case, reference: Any, policy: Any, rounds: int, folder: str) -> dict[str, Any]:
    """The figures of one micro-batch."""
    shared = Ours(case, policy, reference, "auto")
    naive = Ours(case, policy, reference, "off")
    sides: dict[str, Side] = {"shared": shared, "naive": naive, "trl": trl_side(case, policy, reference, folder)}

    seconds = medians(interleaved({name: side.step for name, side in sides.items()}, rounds))
    for side in sides.values():
        side.policy.zero_grad(set_to_none=True)
    memory, gradients = {}, {}
    for name, side in sides.items():
        memory[name] = peak_bytes(side.step, policy.device)
        gradients[name] = side.gradient()
        side.policy.zero_grad(set_to_none=True)
    error = max(furthest(shared.logps(), naive.logps()), relative(gradients["shared"], gradients["naive"]))
    loss_error = abs(shared.loss / sides["trl"].loss - 1)
    trl_error = max(loss_error, relative(gradients["shared"], gradients["trl"]))
    ratio = flop_ratio(case, policy.config)
    return {
        "case": case.name,
        "objective": case.objective,
        "cohorts": case.cohorts,
        "seconds": seconds,
        "speedup_vs_naive": seconds["naive"] / seconds["shared"],
        "speedup_vs_trl": seconds["trl"] / seconds["shared"],
        "flop_ratio": ratio,
        "share_of_ideal": seconds["naive"] / seconds["shared"] / ratio,
        "max_rel_error": error,
        "trl_rel_error": trl_error,
        "peak_mib": {name: used / 2**20 for name, used in memory.items()},
        "peak_memory_ratio": memory["shared"] / memory["naive"],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every case."""
    reference = llama(options)
    policy = llama(options)
    with torch.no_grad():  # as after some updates: a policy that is its reference has no margins
        for weights in policy.parameters():
            weights.mul_(1 + 0.1 * torch.rand_like(weights))
    cases = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prefix, suffix in zip(options.prefixes, options.suffixes, strict=True):
            for k, cohorts in ((2, options.pairs), (16, options.groups)):
                case = Case(prefix, suffix, k, cohorts)
                print(f"measuring {case.name}", file=sys.stderr)
                cases.append(measure_case(case, reference, policy, options.rounds, folder))
    return {
        "cases": cases,
        "parameters": sum(weights.numel() for weights in policy.parameters()),
        "width": options.width,
        "layers": options.layers,
        "vocabulary": options.vocabulary,
        "device": options.device,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
    }


def goals(cases: list[dict[str, Any]]) -> list[Goal]:
    """Each the worst of its cases."""
    groups = [case for case in cases if case["objective"] == "grpo"]
    pairs = [case for case in cases if case["objective"] == "dpo"]
    return [
        Goal("speedup_vs_trl (K=16)", min(case["speedup_vs_trl"] for case in groups), ">=", 5),
        Goal("share_of_ideal (K=16)", min(case["share_of_ideal"] for case in groups), ">=", 0.75),
        Goal("speedup_vs_trl (K=2)", min(case["speedup_vs_trl"] for case in pairs), ">=", 1.5),
        Goal("max_rel_error", max(case["max_rel_error"] for case in cases), "<=", 1e-5),
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    """For docs/benchmarks.md."""
    model = f"{result['parameters'] / 1e6:.1f} M parameters, width {result['width']}, {result['layers']} layers"
    where = f"vocabulary {result['vocabulary']}, {result['dtype']}, {result['device']}, {result['threads']} threads"
    speed = Table(
        f"A micro-batch forward and backward; Llama of {model}, {where}",
        ("case", "objective", "cohorts", "naive s", "TRL s", "shared s", "vs naive", "vs TRL", "FLOPs", "of ideal"),
        [
            [
                case["case"],
                case["objective"],
                case["cohorts"],
                case["seconds"]["naive"],
                case["seconds"]["trl"],
                case["seconds"]["shared"],
                case["speedup_vs_naive"],
                case["speedup_vs_trl"],
                case["flop_ratio"],
                case["share_of_ideal"],
            ]
            for case in result["cases"]
        ],
    )
    exact = Table(
        "Memory at the peak of a step beside the weights, and how far figures are apart",
        ("case", "naive MiB", "TRL MiB", "shared MiB", "shared over naive", "error vs naive", "error vs TRL"),
        [
            [
                case["case"],
                case["peak_mib"]["naive"],
                case["peak_mib"]["trl"],
                case["peak_mib"]["shared"],
                case["peak_memory_ratio"],
                case["max_rel_error"],
                case["trl_rel_error"],
            ]
            for case in result["cases"]
        ],
    )
    return [speed, exact]


def main() -> None:
    """Parse the arguments, measure, print."""
    made = parser(__doc__, "shared-prefix")
    made.add_argument("--prefixes", type=int, nargs="+", default=[480, 960], help="tokens of the prefix, a case each")
    made.add_argument("--suffixes", type=int, nargs="+", default=[32, 64], help="tokens of a suffix, of the same cases")
    made.add_argument("--pairs", type=int, default=2, help="cohorts of two in a micro-batch")
    made.add_argument("--groups", type=int, default=1, help="cohorts of 16 in a micro-batch")
    made.add_argument("--width", type=int, default=256, help="of the model")
    made.add_argument("--layers", type=int, default=4)
    made.add_argument("--vocabulary", type=int, default=4096)
    made.add_argument("--rounds", type=int, default=3, help="of all sides in turn")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = made.parse_args()
    figures = measure(options)
    finish(Result("shared-prefix", figures, goals(figures["cases"]), ("torch", "transformers", "trl")), options)


if __name__ == "__main__":
    main()
