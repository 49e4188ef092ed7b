"""Cost as work grows.

    preceptor bench growth --json

Time and memory of the real parts over a range of sizes, and the exponent e of `cost = c x size^e`: least squares on the
logarithms, with its standard error. Of a total (a step, a checkpoint, a status) e should be at most 1; of the cost of
one cohort in a queue that holds many, 0; of the judges' throughput, at least 1 until another limit. The goals take the
standard error in favour of the goal. `at the end` is the exponent between the two largest sizes alone.

What each part is: `update`, GRPO over all candidates of a Llama of 0.9 M parameters, prefix 128, suffix 32, with 4
cohorts of 4 candidates where they do not vary; `update without attention`, the same, each sequence by itself, with a
model whose attention looks at nothing; `sampling`, the sampler in the trainer's process, its seconds alone;
`bookkeeping`, buffer, selection, ledger and metrics of two steps; `schedule`, comparisons of one cohort (by a judge
that errs in one answer of seven) and the processor time between them; `queue`, a Redis of its own, in groups of 64
cohorts of 2 KB; `judging`, workers in one process before an engine of set latency. Memory is the peak of resident pages
on top of what was there before; for Redis it is its own count.

The limit: attention over the prefix must grow with its square, and all pairs are all pairs (and Swiss rounds have a
logarithm). Nothing else may grow by more than its size.

![cost as work grows](images/growth.svg)
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth_parts.bookkeeping import bookkeeping_curves
from benchmarks.growth_parts.curves import BOUNDS, Curve, linear_and_square
from benchmarks.growth_parts.judge_curves import judge_curves
from benchmarks.growth_parts.plot import save_plot
from benchmarks.growth_parts.policy_curves import sampling_curves, update_curves
from benchmarks.growth_parts.queue_curves import depth_curves, in_flight_curve
from benchmarks.growth_parts.schedule_curves import schedule_curves
from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from preceptor_client.queue import connect
from preceptor_client.stack import Process, redis_part

PLOT = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"
PARTS = ("update", "sampling", "bookkeeping", "schedules", "queue", "judges")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, save."""
    made = parser(__doc__, "growth")
    made.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; a plot is saved of all alone")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--largest", type=int, default=100_000, help="cohorts waiting in the queue")
    made.add_argument("--smallest", action="store_true", help="three small sizes of each: does it run at all?")
    options = made.parse_args(arguments)
    parts = tuple(options.parts.split(","))
    if unknown := set(parts) - set(PARTS):
        made.error(f"--parts: there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    figures = measure(parts, options)
    result = Result("growth", figures, list(goals(figures)), packages=("torch", "transformers", "redis", "numpy"))
    finish(result, options)
    if options.save:
        save_plot(figures["curves"], PLOT)


def measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """The curves as they go into the result."""
    sizes = _sizes(options)
    curves: list[Curve] = []
    further: dict[str, Any] = {}
    for part in parts:
        began = time.perf_counter()
        if part == "update":
            curves += update_curves(sizes, options.rounds)
        elif part == "sampling":
            curves += sampling_curves(sizes, options.rounds)
        elif part == "bookkeeping":
            curves += bookkeeping_curves(sizes["step"], sizes["k"], sizes["in_flight"], options.rounds)
        elif part == "schedules":
            curves += schedule_curves(sizes["tournament"], 5 * options.rounds)
        else:
            found, more = asyncio.run(_on_redis(part, sizes))
            curves += found
            further |= more
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    prefix = [each for each in curves if each.part == "update" and (each.against, each.unit) == ("prefix tokens", "s")]
    for curve in prefix:
        constant, linear, square = linear_and_square(curve.sizes, curve.values)
        longest = curve.sizes[-1]
        share = square * longest**2 / (constant + linear * longest + square * longest**2)
        further["square_part"] = {"prefix_tokens": longest, "share_of_update": share}
    return {"curves": [curve.plain() for curve in curves], **further}


def _sizes(options: argparse.Namespace) -> dict[str, Sequence[int]]:
    if options.smallest:
        few = (2, 4, 8)
        tens = (20, 40, 80)
        return {
            "k": few,
            "cohorts": few,
            "prefix": tens,
            "step": few,
            "in_flight": tens,
            "tournament": few,
            "depth": tens,
            "judges": (1, 2),
        }
    return {
        "k": (2, 4, 8, 16, 32),
        "cohorts": (2, 4, 8, 16),
        "prefix": (128, 256, 512, 1024, 2048),
        "step": (64, 256, 1024, 4096),
        "in_flight": (100, 1_000, 10_000),
        "tournament": (8, 16, 32, 64),
        "depth": tuple(size for size in (100, 1_000, 10_000, 30_000, 100_000) if size <= options.largest),
        "judges": (1, 2, 4, 8, 16),
    }


async def _on_redis(part: str, sizes: dict[str, Sequence[int]]) -> tuple[list[Curve], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        server = Process(redis_part(Path(folder)))
        try:
            await asyncio.to_thread(server.wait_ready)
            async with connect(server.part.url or "") as redis:
                if part == "judges":
                    curve, busy = await judge_curves(
                        redis, sizes["judges"], latency_s=0.1 if len(sizes["judges"]) < 3 else 1.0
                    )
                    return [curve], {"processors_of_the_judges": busy}
                return [
                    *[each async for each in depth_curves(redis, sizes["depth"])],
                    await in_flight_curve(redis, sizes["in_flight"]),
                ], {}
        finally:
            server.stop()


def goals(figures: dict[str, Any]) -> Iterator[Goal]:
    """Of every curve of which one growth is wanted."""
    for curve in figures["curves"]:
        if curve["wanted"]:
            relation, bound = BOUNDS[curve["wanted"]]
            error = curve["error"] if relation == ">=" else -curve["error"]
            figure = f"{curve['part']}, {curve['unit']} against {curve['against']}: exponent"
            yield Goal(figure, curve["exponent"] + error, relation, bound)


def tables(result: dict[str, Any]) -> list[Table]:
    """Of the saved result."""
    rows = [
        (
            curve["part"],
            curve["against"],
            f"{curve['sizes'][0]:,} to {curve['sizes'][-1]:,}",
            f"{_figure(curve['values'][0])} to {_figure(curve['values'][-1])} {curve['unit']}",
            f"{curve['exponent']:.2f} ± {curve['error']:.2f}",
            f"{curve['last']:.2f}",
        )
        for curve in result["curves"]
    ]
    found = [Table("Exponents", ("part", "against", "sizes", "cost", "exponent", "at the end"), rows)]
    if part := result.get("square_part"):
        share = [(part["prefix_tokens"], f"{100 * part['share_of_update']:.0f} %")]
        found.append(Table("Attention's part of the update", ("prefix tokens", "part that grows by the square"), share))
    if busy := result.get("processors_of_the_judges"):
        judging = next(curve for curve in result["curves"] if curve["part"] == "judging")
        busy_rows = [
            (workers, throughput, f"{100 * share:.0f} %")
            for workers, throughput, share in zip(judging["sizes"], judging["values"], busy, strict=True)
        ]
        found.append(Table("Judges", ("workers", "cohorts a second", "of one processor"), busy_rows))
    return found


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
