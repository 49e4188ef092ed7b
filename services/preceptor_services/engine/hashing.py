"""Which replica serves a key: rendezvous hashing (highest random weight). Pure.

In: names of replicas and a key. Out: the names, best first; the same in every process.
Guarantees: without one of the names the others keep their order, so that a lost replica's keys move, each to the next
of its own order, and no other key does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(names: Iterable[str], key: str) -> list[str]:
    """`names` by their weight for `key`, highest first."""
    return sorted(names, key=lambda name: _weight(name, key), reverse=True)


def _weight(name: str, key: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
