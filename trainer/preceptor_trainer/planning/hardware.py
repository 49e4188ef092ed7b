"""GPUs, from their makers' data sheets: dense bf16 FLOP/s, memory, its bandwidth. Decimal units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GpuName = Literal["A100", "H100", "H200", "B200"]


@dataclass(frozen=True)
class Gpu:
    """One of them."""

    name: str
    flops: float
    """bf16, dense, a second."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes of memory a second."""


GPUS: dict[GpuName, Gpu] = {
    "A100": Gpu("A100 SXM 80 GB", 312e12, 80e9, 2.039e12),
    "H100": Gpu("H100 SXM 80 GB", 989e12, 80e9, 3.35e12),
    "H200": Gpu("H200 SXM 141 GB", 989e12, 141e9, 4.8e12),
    "B200": Gpu("B200 180 GB", 2250e12, 180e9, 8.0e12),
}
