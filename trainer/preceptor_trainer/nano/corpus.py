"""The nano world's raw corpus: what a policy is pretrained on, with the flaws of the web in a known share.

In: a path, a number of documents, a name. Out: a JSONL file, one `{"text": ...}` a line. Guarantees: the name decides
the documents, and other names share none of their randomness, so that what is held out stays held out.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from preceptor_trainer.nano.text import RAW, document, text
from preceptor_trainer.nano.world import World


def write_corpus(path: Path, documents: int, *, name: str, seed: int = 0) -> Path:
    """Writes the corpus `name` and returns `path`."""
    world, rng = World.generate(), random.Random(f"corpus-{name}-{seed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(documents):
            file.write(json.dumps({"text": text(document(world, rng, RAW))}) + "\n")
    return path
