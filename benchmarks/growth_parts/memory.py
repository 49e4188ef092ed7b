"""The most memory that a call takes on top of what is there already.

In: a function. Out: bytes. By the operating system's count of resident pages, with an allocator that gives back at once
what is freed: so on Linux with glibc alone.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MMAP_THRESHOLD = -3
_SMALL, _USUAL = 64 * 1024, 32 * 1024 * 1024


def peak_bytes(call: Callable[[], object]) -> int:
    """Of `call`, which has run before, so that what is kept from then on is there already."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _SMALL)
    try:
        gc.collect()
        libc.malloc_trim(0)
        _CLEAR.write_text("5")  # begin the count of the most anew
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)


def _status(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(found.split()[1])
