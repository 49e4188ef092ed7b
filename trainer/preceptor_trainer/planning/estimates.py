"""The shares of the ideal that a plan reckons with, and where each comes from.

In: what the settings say, and a folder of benchmark results. Out: a value for every share: given, else measured by a
benchmark, else assumed. What was measured on a CPU is taken for a GPU only where it is a ratio that the machine hardly
matters to; the source says on what it was measured. Raises `TrainError` for results that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from preceptor_trainer.errors import TrainError
from preceptor_trainer.planning.settings import Estimates


@dataclass(frozen=True)
class Estimate:
    """A share, and where it comes from."""

    value: float
    source: str
    what: str


@dataclass(frozen=True)
class _Known:
    """`key` of `benchmark`'s result: as it stands at the top, else the median of wherever it stands. `most`: what is
    above comes from the machine it was measured on. `on_gpu`: counts only if measured on one."""

    what: str
    assumed: float
    reason: str
    benchmark: str | None = None
    key: str = ""
    on_gpu: bool = False
    most: float = inf


_KNOWN = {
    "shared_prefix": _Known(
        "update with shared prefixes: speed-up measured over speed-up of the FLOPs",
        0.75,
        "what the project aims at",
        "shared-prefix",
        "share_of_ideal",
        most=1.0,
    ),
    "overlap": _Known(
        "seconds of a step over those of its longest stage",
        1.10,
        "what the project aims at",
        "overlap",
        "step_over_longest_stage",
    ),
    "judge_service": _Known(
        "verdicts a second through the service over those of bare vLLM",
        0.95,
        "what the project aims at",
        "judge",
        "share_of_direct",
        most=1.0,
    ),
    "update_mfu": _Known(
        "share of the GPU's FLOP/s in the update",
        0.40,
        "usual for models of about a billion parameters under FSDP",
        "scale",
        "mfu",
        on_gpu=True,
    ),
    "prefill_mfu": _Known("share of the GPU's FLOP/s where prompts are read", 0.50, "usual for prefill in vLLM"),
    "decode_bandwidth": _Known(
        "share of the memory's bandwidth where tokens are written", 0.60, "usual for decoding in vLLM"
    ),
    "network": _Known("bytes a second of a broadcast of the weights", 40e9, "80 % of one 400 Gbit/s card"),
}


def estimates(given: Estimates, results: Path | None) -> dict[str, Estimate]:
    """By name, as in `Estimates`."""
    return {name: _estimate(getattr(given, name), known, results) for name, known in _KNOWN.items()}


def _estimate(given: float | None, known: _Known, results: Path | None) -> Estimate:
    if given is not None:
        return Estimate(given, "given", known.what)
    if known.benchmark and results and (result := _read(results / f"{known.benchmark}.json")):
        device = result.get("measured", {}).get("device")
        values = [result[known.key]] if known.key in result else list(_values(result, known.key))
        if values and (device or not known.on_gpu):
            on = device or "CPU"
            return Estimate(
                min(known.most, median(values)), f"measured on {on}: benchmark {known.benchmark}", known.what
            )
    return Estimate(known.assumed, f"assumed: {known.reason}", known.what)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot read {path}: {error}") from None
    return result if isinstance(result, dict) else None


def _values(found: Any, key: str) -> Iterator[float]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name == key and isinstance(value, int | float):
                yield float(value)
            else:
                yield from _values(value, key)
    elif isinstance(found, list):
        for value in found:
            yield from _values(value, key)
