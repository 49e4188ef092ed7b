"""The nano world: a generated world with its corpus, its teacher and its oracle, small enough to train in minutes."""

import os
from pathlib import Path

DEFAULT_CACHE = Path(os.environ.get("PRECEPTOR_CACHE") or Path.home() / ".cache" / "preceptor")
"""Where nano teachers are kept."""
