"""What to call the teacher's weights when nobody said: a hash of their content, if they lie on this machine.

In: what the engine says it loaded. Out: `sha256:...`, or `unknown`. Reads the weights once; blocks while it does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

UNKNOWN = "unknown"
_LARGEST_BYTES = 4 * 1024**3
"""Above this, hashing takes longer than a service should take to start: set `engine.revision`."""


def weights_revision(root: str | None) -> str:
    """The hash of the safetensors files in the directory `root`; `unknown` if it is not a readable directory of
    weights here."""
    files = sorted(Path(root).glob("*.safetensors")) if root and Path(root).is_absolute() else []
    digest = hashlib.sha256()
    try:
        if not files or sum(path.stat().st_size for path in files) > _LARGEST_BYTES:
            return UNKNOWN
        for path in files:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return UNKNOWN
    return f"sha256:{digest.hexdigest()[:16]}"
