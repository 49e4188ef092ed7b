"""The corpora of the hops: what a policy is pretrained on, and the questions that it goes on with.

In: a path, a number of documents, a name. Out: a JSONL file, one `{"text": ...}` a line. Guarantees: the name and the
seed decide the documents, as in the nano world's corpora; questions of two hops are about those who are told of alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from preceptor_trainer.nano.hops.facts import Hops
from preceptor_trainer.nano.world import World


def write_documents(path: Path, documents: int, *, name: str, seed: int = 0) -> Path:
    """Documents of several sentences, to learn the world from."""
    return _write(path, documents, f"hops-documents-{name}-{seed}", Hops(World.generate()).document)


def write_questions(path: Path, documents: int, *, name: str, seed: int = 0) -> Path:
    """Questions with their answers, as often of two hops as of one."""
    hops = Hops(World.generate())

    def question(rng: random.Random) -> str:
        asked = hops.ask_one_hop(rng) if rng.random() < 0.5 else hops.ask_two_hops(rng, hops.told)
        return asked.text

    return _write(path, documents, f"hops-questions-{name}-{seed}", question)


def _write(path: Path, documents: int, name: str, draw: Callable[[random.Random], str]) -> Path:
    rng = random.Random(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": draw(rng)}) + "\n" for _ in range(documents))
    return path
