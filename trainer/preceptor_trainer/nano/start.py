"""What teaching starts from in the nano world: a teacher that has had few lessons, and what to teach it with.

In: a folder and sizes; a policy, if the teacher shall begin as that one. Out: in the folder `teacher` (a Hugging Face
directory), `documents.jsonl` and `held-out.jsonl` (texts without a flaw) and `passages.jsonl` (`prefix`, `text`,
`safe`: labelled by construction). May take a minute.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from preceptor_trainer.nano.labelled import MIN_PREFIX_WORDS, SUFFIX_WORDS
from preceptor_trainer.nano.teacher import Recipe, ensure_teacher
from preceptor_trainer.nano.text import CLEAN, Rates, continuation, document, label, text
from preceptor_trainer.nano.world import ATTRIBUTES, World

_HELD_OUT = 1000
_PASSAGES = 2000
_UNSAFE = Rates(unsafe=0.25)


def write_start(folder: Path, *, steps: int, documents: int, seed: int = 0, policy: Path | None = None) -> Path:
    """Writes everything and returns `folder`. Raises `TrainError` for a policy that is not of the nano world."""
    folder.mkdir(parents=True, exist_ok=True)
    made = ensure_teacher(folder, recipe=Recipe(seed=seed, steps=steps), policy=policy)
    world = World.generate()
    for name, count in (("documents", documents), ("held-out", _HELD_OUT)):
        rng = random.Random(f"teach-{name}-{seed}")
        _write(folder / f"{name}.jsonl", ({"text": _clean(world, rng)} for _ in range(count)))
    _write(folder / "passages.jsonl", passages(world, random.Random(f"teach-passages-{seed}"), _PASSAGES))
    shutil.rmtree(folder / "teacher", ignore_errors=True)
    made.rename(folder / "teacher")
    return folder


def _clean(world: World, rng: random.Random) -> str:
    """As many sentences as there is to say: one more would repeat something, which is a flaw."""
    return text(document(world, rng, CLEAN, sentences=len(ATTRIBUTES)))


def passages(world: World, rng: random.Random, count: int) -> Iterator[dict[str, object]]:
    """Lines of a file of labels, every other one safe."""
    for number in range(count):
        while True:
            doc = document(world, rng, CLEAN, sentences=len(ATTRIBUTES))
            at = rng.randint(MIN_PREFIX_WORDS, len(doc) - SUFFIX_WORDS)
            suffix = continuation(world, doc, at, rng, _UNSAFE, SUFFIX_WORDS)
            safe = label(doc[:at], suffix).safe
            if safe == (number % 2 == 0):
                break
        yield {"prefix": text(doc[:at]), "text": text(suffix), "safe": safe}


def _write(path: Path, rows: Iterator[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
